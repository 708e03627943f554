"""How well estimators foretell what ablations do to J, on the noise they were made from and on other noise."""
