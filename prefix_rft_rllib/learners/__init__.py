"""One update: from finished episodes to an optimizer step."""
