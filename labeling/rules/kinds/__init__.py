"""What a feature can be called: things, scenes, looks and places, and how they compete."""
