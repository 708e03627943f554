"""The arithmetic of training and encoding, sparse where the code is sparse."""
