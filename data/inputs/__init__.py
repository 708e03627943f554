"""What a job is given: prompts, edits, activation shards and model folders."""
