"""What edits of weights do: pairs of pictures, classifiers and detectors that judge them, attacks, distances."""
