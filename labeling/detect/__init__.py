"""Concepts become boxes."""
