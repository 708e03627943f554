"""SAE features beside weights: how active they are, and erasing a concept through them."""
