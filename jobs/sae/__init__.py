"""Training autoencoders: capture, stream, train, measure."""
