"""Learner connector pieces of Prefix-RFT."""
