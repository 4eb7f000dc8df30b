"""Demonstrations: cuts before answers, solution steps, rewards."""
