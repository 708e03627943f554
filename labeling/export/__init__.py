"""A run's pictures, segments and tables in the formats of other tools."""
