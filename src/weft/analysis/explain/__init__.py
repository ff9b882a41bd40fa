"""What becomes of a request: a walk through the configuration that a proxy receives."""
