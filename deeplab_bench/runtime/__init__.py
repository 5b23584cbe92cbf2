"""Where and how torch computes: device and processes."""
