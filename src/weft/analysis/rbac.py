"""Envoy's role-based access control: which policy decides about a request or a connection.

Rules: the comments of envoy/config/rbac/v3/rbac.proto.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weft.analysis import match
from weft.analysis.connection import within
from weft.analysis.match import Scene
from weft.analysis.paths import template, without_query

if TYPE_CHECKING:
    from weft.protos import rbac_v3

_ALLOW, _DENY = 0, 1
_DYNAMIC = 0  # MetadataSource
_REMOTE: Final = {"direct_remote_ip": "source_ip", "source_ip": "source_ip", "remote_ip": "remote_ip"}


def decide(rules: rbac_v3.RBAC, scene: Scene) -> tuple[bool, str]:
    """Whether it may pass, and the policy that fits, the first by name; empty when none does."""
    fitting = ""
    for name in sorted(rules.policies):
        policy = rules.policies[name]
        if any(permission(one, scene) for one in policy.permissions) and any(
            principal(one, scene) for one in policy.principals
        ):
            fitting = name
            break
    if rules.action == _ALLOW:
        return bool(fitting), fitting
    return (not fitting if rules.action == _DENY else True), fitting


def permission(rule: rbac_v3.Permission, scene: Scene) -> bool:
    """Whether a Permission holds: what is asked for."""
    kind = rule.WhichOneof("rule")
    match kind:
        case "and_rules":
            return all(permission(one, scene) for one in rule.and_rules.rules)
        case "or_rules":
            return any(permission(one, scene) for one in rule.or_rules.rules)
        case "not_rule":
            return not permission(rule.not_rule, scene)
        case "any":
            return bool(rule.any)
        case "header":
            return match.header(rule.header, scene.headers)
        case "url_path":
            return bool(scene.path) and match.text(rule.url_path.path, without_query(scene.path))
        case "destination_ip":
            return within((rule.destination_ip,), scene.destination_ip)
        case "destination_port":
            return bool(rule.destination_port == scene.destination_port)
        case "destination_port_range":
            bounds = rule.destination_port_range
            return bool(bounds.start <= scene.destination_port < bounds.end)
        case "metadata":
            return match.metadata(rule.metadata, scene.metadata)
        case "sourced_metadata":
            return _sourced(rule.sourced_metadata, scene)
        case "requested_server_name":
            return match.text(rule.requested_server_name, scene.server_name)
        case "uri_template":
            return _template(rule, scene)
    return False


def _sourced(test: rbac_v3.SourcedMetadata, scene: Scene) -> bool:
    """What filters found out. Of a route's own metadata nothing is known here: nobody puts any there."""
    known = scene.metadata if test.metadata_source == _DYNAMIC else {}
    return match.metadata(test.metadata_matcher, known)


def _template(rule: rbac_v3.Permission, scene: Scene) -> bool:
    from weft.protos import uri_template_match_v3

    config = uri_template_match_v3.UriTemplateMatchConfig.FromString(rule.uri_template.typed_config.value)
    return template(config.path_template).fullmatch(without_query(scene.path)) is not None


def principal(rule: rbac_v3.Principal, scene: Scene) -> bool:
    """Whether a Principal holds: who asks."""
    kind = rule.WhichOneof("identifier")
    match kind:
        case "and_ids":
            return all(principal(one, scene) for one in rule.and_ids.ids)
        case "or_ids":
            return any(principal(one, scene) for one in rule.or_ids.ids)
        case "not_id":
            return not principal(rule.not_id, scene)
        case "any":
            return bool(rule.any)
        case "authenticated":
            if scene.peer is None:
                return False
            if not rule.authenticated.HasField("principal_name"):
                return True
            return any(match.text(rule.authenticated.principal_name, name) for name in scene.peer)
        case "direct_remote_ip" | "remote_ip" | "source_ip":
            return within((getattr(rule, kind),), getattr(scene, _REMOTE[kind]))
        case "header":
            return match.header(rule.header, scene.headers)
        case "url_path":
            return bool(scene.path) and match.text(rule.url_path.path, without_query(scene.path))
        case "metadata":
            return match.metadata(rule.metadata, scene.metadata)
        case "sourced_metadata":
            return _sourced(rule.sourced_metadata, scene)
        case "filter_state":
            return rule.filter_state.key == "io.istio.peer_principal" and any(
                match.text(rule.filter_state.string_match, name) for name in scene.peer or ()
            )
    return False
