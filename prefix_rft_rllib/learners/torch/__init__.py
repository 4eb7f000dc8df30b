"""RLlib's learner and module in torch."""
