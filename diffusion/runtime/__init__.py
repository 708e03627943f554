"""How models run beside the machine: memory, compilers, threads."""
