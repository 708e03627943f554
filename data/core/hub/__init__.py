"""Models of the hub: which commit a cached copy is of, and no long wait for a hub out of reach."""
