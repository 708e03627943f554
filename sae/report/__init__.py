"""What became of a set of autoencoders."""
