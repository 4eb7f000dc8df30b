"""Worker processes that can be ended, for verifiers and the sandbox."""
