"""The autoencoder, its checkpoints, and the layouts of other projects."""
