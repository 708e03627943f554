"""Autoencoders as other projects store them: one file a layout, all folded into the tensors of one formula."""
