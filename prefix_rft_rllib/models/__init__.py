"""A Hugging Face causal language model: loaded, scored, trained, sent, exported; no Ray."""
