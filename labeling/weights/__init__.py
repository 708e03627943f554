"""Model files of detectors and segmenters: read safely, translated between libraries."""
