"""What is wrong with a configuration, what applies to whom, and where a request would go."""
