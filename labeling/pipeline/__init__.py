"""The stages of one shard, as plain code that any executor can run."""
