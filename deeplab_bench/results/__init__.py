"""Result files: their paths, their schemas, and their provenance."""
