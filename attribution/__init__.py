"""Which weights carry a concept: score, ablate, evaluate.

`samples` are the U-Net inputs a concept is measured on, an `objective` turns them into a number J, an `estimator` gives
every weight its contribution to J, a `selection` picks weights, a `delta` changes them and puts them back.
"""
