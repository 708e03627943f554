"""Programs that measure the autoencoders."""
