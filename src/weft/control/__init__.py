"""The control plane: API, sources, pipeline, status; wires, starts and drains them."""
