"""``status`` of a GatewayClass: whether weft serves it, and which of the API's features it has."""

from __future__ import annotations

from weft.compile.gatewayapi.conditions import Status, condition
from weft.compile.gatewayapi.features import SUPPORTED
from weft.model.gateway_class import GatewayClass


def class_status(resource: GatewayClass) -> Status:
    """A class of ours is accepted unless it asks for parameters that nobody could read."""
    said = resource.metadata
    ref = resource.spec.parameters_ref
    reason, message = "Accepted", "weft serves Gateways of this class"
    if ref is not None:
        reason = "InvalidParameters"
        message = f"weft takes no parameters for a class: {ref.group}/{ref.kind} {ref.name} is not read"
    version = "the kinds of Gateway API 1.6 are served"
    return {
        "conditions": [
            condition(said, "Accepted", reason == "Accepted", reason, message),
            condition(said, "SupportedVersion", True, "SupportedVersion", version),
        ],
        "supportedFeatures": [{"name": name} for name in SUPPORTED],
    }
