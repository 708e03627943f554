"""The TopK sparse autoencoder: its maths, its training and its checkpoints."""
