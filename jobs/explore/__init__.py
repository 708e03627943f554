"""`gazetteer explore`: a local page to touch a finished run."""
