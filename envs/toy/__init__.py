"""Generated problems and their tokenizer."""
