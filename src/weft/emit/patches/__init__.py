"""Istio's EnvoyFilter: changes that people make to the messages themselves, after all else is done."""
