"""Pure functions on plain numbers, numpy arrays and torch tensors: everything that is maths.

This package imports torch and numpy only. It knows neither Ray nor environments nor methods.
"""
