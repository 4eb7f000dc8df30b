"""From messages to token ids: chat templates, end tokens, prompts."""
