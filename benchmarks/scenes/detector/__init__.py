"""Training the tiny Grounding DINO of the Scenes world."""
