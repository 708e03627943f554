"""Masks and codes become evidence: additive integer counts, exact at pixel resolution."""
