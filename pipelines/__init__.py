"""One thin script a stage: arguments, one call, files."""
