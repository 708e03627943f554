"""What `benchmarks/scale.py` measures, one file a subject."""
