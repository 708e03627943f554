"""Grounding DINO through transformers and through its authors' package."""
