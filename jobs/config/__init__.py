"""The configuration of a run: its schema, what makes a run this run, and the presets."""
