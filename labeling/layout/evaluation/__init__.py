"""Layout prediction, measured beside its baselines."""
