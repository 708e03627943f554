"""The causal pass: which features are switched on which pictures, what that does, and what it comes to."""
