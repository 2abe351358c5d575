"""What do all parts talk about? Immutable values without behaviour of their own: no I/O, no clock, no client."""
