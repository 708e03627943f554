"""The experiments on a finished run, driven from its configuration: layout, steering, causes, attribution."""
