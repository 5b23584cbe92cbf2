"""What `params.yaml` may say, and what the papers publish."""
