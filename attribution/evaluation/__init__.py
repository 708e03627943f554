"""What edits of weights do: pairs of pictures, classifiers and detectors that read them, attacks, distances."""
