"""What `benchmarks.measure` runs, and the tables of what it found."""
