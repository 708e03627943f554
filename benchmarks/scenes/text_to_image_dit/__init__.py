"""The second text-to-image model of the Scenes world: a small transformer of the SD 3 kind, by flow matching."""
