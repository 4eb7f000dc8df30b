"""The engine that samples with transformers' own models."""
