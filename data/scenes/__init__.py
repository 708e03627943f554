"""Scenes: a small painted world with exact masks and captions.

Its ground truth is known, so the quality of labels, layouts and steering can be measured.
Nothing outside this package depends on it.
"""
