"""The run folder: shards that are committed exactly once, plans, final tables, and their verification."""
