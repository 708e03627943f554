"""How good labels are, and how two runs differ."""
