"""Training scripts of the tiny models that ship with the Scenes world."""
