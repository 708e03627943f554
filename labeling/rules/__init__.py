"""Evidence becomes labels: the published rule, the data-set rule, and the null."""
