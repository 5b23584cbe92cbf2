"""The stages of dvc.yaml and the commands around them, a thin script each."""
