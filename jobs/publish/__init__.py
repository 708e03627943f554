"""Finished runs for others: cards, Croissant descriptions, folders and Hugging Face repositories."""
