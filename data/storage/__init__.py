"""Where files lie: local folders and URLs, whole files only, links not followed, locks where there are any."""
