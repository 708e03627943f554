"""Training the tiny text-to-image model of the Scenes world."""
