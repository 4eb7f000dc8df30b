"""How good a model is: held-out problems, intervals, paired tests."""
