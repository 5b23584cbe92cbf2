"""Use of a trained network on photographs: prediction, pictures, and export to other formats."""
