"""The run folder: files, locks, shards that are committed exactly once, and their verification."""
