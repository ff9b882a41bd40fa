"""The Gateway API's resources, one module a kind."""
