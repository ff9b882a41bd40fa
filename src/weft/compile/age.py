"""Which of two conflicting resources wins: the older, then the first by name (Istio and Gateway API)."""

from __future__ import annotations

from weft.model.resource import Metadata


def age(metadata: Metadata) -> tuple[str, str, str]:
    """Sort key: creation time (those without one last), namespace, name."""
    return (str(metadata.creation_timestamp or "9"), metadata.namespace, metadata.name)


def precedence(metadata: Metadata) -> tuple[str, str, str]:
    """Sort key among Istio's resources: creation time, then the name before the namespace (its config.go)."""
    return (str(metadata.creation_timestamp or "9"), metadata.name, metadata.namespace)
