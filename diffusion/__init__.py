"""The model under study: load it, generate with seeds that belong to images, capture what its blocks write."""
