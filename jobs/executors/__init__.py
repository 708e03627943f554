"""Who carries out tasks: this process, or actors on Ray."""
