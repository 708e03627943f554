"""What edits do to pictures, measured."""
