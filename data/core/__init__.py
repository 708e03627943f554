"""What everything else is built from: errors, sites, digests and a shuffle that can be entered anywhere."""
