"""From ``ir`` to what Envoy reads. Nothing is imported here: the node agent uses ``bootstrap`` alone."""
