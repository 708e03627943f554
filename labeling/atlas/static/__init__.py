"""The pages of an atlas as they are copied: HTML, CSS and plain scripts, no framework."""
