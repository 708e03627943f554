"""Programs that measure attribution."""
