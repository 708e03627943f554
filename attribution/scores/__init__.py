"""How much every weight contributes: estimators, what is taken of them, and how well they predict ablations."""
