"""The labelling job: its shards, its progress, its summary."""
