"""What is attributed: a scalar J of the denoiser on captured inputs."""
