"""The autoencoder, its checkpoints, and the formats of other projects."""
