"""From labels to edits: features to steer with, and what features cause."""
