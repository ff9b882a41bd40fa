"""Istio's resources, one module a kind."""
