"""Grounding DINO through transformers and through its authors' package, and the weights between the two."""
