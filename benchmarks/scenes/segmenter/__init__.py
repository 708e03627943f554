"""Training the tiny SAM of the Scenes world."""
