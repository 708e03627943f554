"""Attacks on edited models: words, embeddings and training that bring an erased concept back."""
