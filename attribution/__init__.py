"""Which weights carry a concept: score, ablate, evaluate."""
