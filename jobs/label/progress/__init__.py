"""Where a labelling run stands: bars for a person, `_meta/progress.json` and logs for machines."""
