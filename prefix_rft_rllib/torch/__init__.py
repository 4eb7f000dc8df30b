"""Torch side of Prefix-RFT: the RLModule, the Learner and its collectives."""
