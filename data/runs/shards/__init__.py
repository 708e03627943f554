"""Shards of a run: committed exactly once, put together in groups, read back by their records."""
