"""The command line: the parser, the guard around what runs, and what the verbs share."""
