"""What tables hold: schemas, codes, pictures, masks and their provenance."""
