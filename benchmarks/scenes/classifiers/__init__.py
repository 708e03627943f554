"""Training the two small classifiers of the Scenes world."""
