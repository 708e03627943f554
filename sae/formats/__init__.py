"""Autoencoders as other projects store them: one file a format, all folded into the tensors of one formula."""
