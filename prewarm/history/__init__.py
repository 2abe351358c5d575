"""What have we learnt? Image sizes, pull rates, time to ready, plans in force: bounded, and kept over restarts."""
