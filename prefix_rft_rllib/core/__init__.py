"""Pure functions on plain numbers, numpy arrays and torch tensors: everything that is maths.

It imports torch, numpy and `basics` only. It knows neither Ray nor environments nor methods.
"""
