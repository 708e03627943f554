"""Which words are concepts, and which words mean the same."""
