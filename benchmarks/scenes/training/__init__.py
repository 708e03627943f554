"""What the trainings of the Scenes models share: loops, optimiser, processes, scenes on disk."""
