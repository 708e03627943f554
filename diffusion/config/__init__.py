"""What is asked of the model under study; importing it loads no library that runs models."""
