"""The stages of dvc.yaml and the commands: one short script each."""
