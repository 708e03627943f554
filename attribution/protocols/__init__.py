"""The published protocols for real models, as P2's released code runs them: objects, nudity, ordinary prompts."""
