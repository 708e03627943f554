"""What the verbs of the command line take and do: one file a group of verbs."""
