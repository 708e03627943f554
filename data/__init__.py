"""Everything at rest: schemas, prompts, activation shards and the Scenes world."""
