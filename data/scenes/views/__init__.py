"""The freer Scenes world: landscapes, views from above, skies, close-ups and hillsides, with things anywhere."""
