"""Training: settings, data, one run from vectors to a folder, all sites from one stream."""
