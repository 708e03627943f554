"""Evaluations as figures."""
