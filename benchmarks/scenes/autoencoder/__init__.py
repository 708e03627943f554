"""Training the autoencoder that the text-to-image model works in."""
