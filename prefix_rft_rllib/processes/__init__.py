"""Processes of a run: where each is, how it failed, and what a signal to the driver does."""
