"""Learner connector pieces: from episodes to columns, and the old-policy pass."""
