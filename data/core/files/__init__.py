"""Files of this machine: written whole or not at all, told from links and pipes, and from those of others."""
