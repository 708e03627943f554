"""Training, judging and shipping the Scenes world."""
