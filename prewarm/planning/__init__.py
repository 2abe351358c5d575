"""What is worth pulling? Candidate nodes against warmth, in order of value, each skip with its reason."""
