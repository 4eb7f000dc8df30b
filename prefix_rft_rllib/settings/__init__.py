"""Between what a user sets and a run that may start: what settings there are, and their checks."""
