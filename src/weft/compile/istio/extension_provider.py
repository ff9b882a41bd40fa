"""MeshConfig's ``extensionProviders`` that decide about requests, as authorizers.

Source: istio pilot/pkg/security/authz/builder/extauthz.go.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from weft import ir
from weft.compile.hosts import is_wildcard
from weft.compile.registry import Services
from weft.compile.service import Service
from weft.errors import did_you_mean
from weft.model.extension_provider import (
    HEADER_LISTS,
    EnvoyExternalAuthorizationGrpcProvider,
    EnvoyExternalAuthorizationHttpProvider,
    EnvoyExternalAuthorizationRequestBody,
    ExtensionProvider,
    status_of,
)
from weft.names import outbound_cluster

Providers = tuple[ExtensionProvider, ...]

_TIMEOUT: Final = timedelta(seconds=600)
_PORTS: Final = range(1, 65536)
# What Envoy takes of paths and headers.
_PATH: Final = re.compile(r"/[!-~]*")
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")


@dataclass(frozen=True, slots=True)
class Found:
    """The authorizer of a name; None, and why there is none, with what to do about it."""

    authorizer: ir.Authorizer | None
    complaint: str = ""
    hint: str = ""


def authorizer_named(name: str, providers: Providers, services: Services) -> Found:
    """The authorizer that a policy names."""
    candidates = [one for one in providers if _spec(one) is not None]
    named = [one for one in candidates if one.name == name]
    if not named:
        known = [one.name for one in candidates if one.name]
        hint = did_you_mean(name, known) or "add it to extensionProviders of the MeshConfig"
        return Found(None, f"no provider that decides about requests is named {name!r}", hint)
    if len(named) > 1:
        return Found(None, f"{len(named)} providers are named {name!r}", "give each a name of its own")
    spec = _spec(named[0])
    assert spec is not None
    wrong = next(_wrong(spec), "")
    if wrong:
        return Found(None, f"the provider {name!r} cannot be used: {wrong}", "correct it in the MeshConfig")
    service = service_named(str(spec.service), services)
    if isinstance(service, str):
        return Found(None, f"the provider {name!r} cannot be used: {service}", "apply it, or a ServiceEntry")
    return Found(_authorizer(name, spec, service))


_Spec = EnvoyExternalAuthorizationHttpProvider | EnvoyExternalAuthorizationGrpcProvider


def _spec(provider: ExtensionProvider) -> _Spec | None:
    return provider.envoy_ext_authz_http or provider.envoy_ext_authz_grpc


def _wrong(spec: _Spec) -> Iterator[str]:
    """What keeps it from working at all."""
    if not spec.service:
        yield "it has no service"
    if spec.port not in _PORTS:
        yield f"{spec.port or 0} is not a port"
    try:
        status_of(spec.status_on_error)
    except ValueError as error:
        yield str(error)
    if isinstance(spec, EnvoyExternalAuthorizationHttpProvider):
        if spec.path_prefix and not _PATH.fullmatch(spec.path_prefix):
            yield f"its pathPrefix {spec.path_prefix!r} does not begin with '/', or is no path"
        for name, value in (spec.include_additional_headers_in_check or {}).items():
            if not _HEADER.fullmatch(name) or not _VALUE.fullmatch(value):
                yield f"{name!r} is no header with the value {value!r}"
        if any("*" in (getattr(spec, name) or ()) for name in HEADER_LISTS):
            yield "'*' alone is no test of a header's name"


def service_named(text: str, services: Services) -> Service | str:
    """The service of ``[NAMESPACE/]HOST``, or why there is none."""
    namespace, slash, host = text.rpartition("/")
    known = services.by_host.get(host, ())
    found = [one for one in known if not slash or one.namespace == namespace]
    if not found or is_wildcard(host):
        return f"there is no service {text!r}"
    spaces = sorted({one.namespace for one in found})
    if len(spaces) > 1:
        return f"{host!r} is in the namespaces {', '.join(spaces)}: write {spaces[0]}/{host}, or another"
    return min(found, key=lambda service: service.order)


def _authorizer(name: str, spec: _Spec, service: Service) -> ir.Authorizer:
    assert spec.port is not None
    host = service.alias_of or service.host
    cluster = outbound_cluster(host, spec.port)
    common = ir.Authorizer(
        name=name,
        cluster=cluster,
        host=host,
        protocol=ir.AuthorizerProtocol.GRPC,
        timeout=spec.timeout if spec.timeout is not None else _TIMEOUT,
        body=_body(spec.include_request_body_in_check),
        fail_open=bool(spec.fail_open),
        error_status=status_of(spec.status_on_error) or None,
        reroute=bool(spec.clear_route_cache),
    )
    if isinstance(spec, EnvoyExternalAuthorizationGrpcProvider):
        return common
    return replace(
        common,
        protocol=ir.AuthorizerProtocol.HTTP,
        path_prefix=spec.path_prefix or "",
        headers=_names(spec.include_request_headers_in_check or spec.include_headers_in_check or ()),
        added_headers=tuple(sorted((spec.include_additional_headers_in_check or {}).items())),
        upstream_headers=_names(spec.headers_to_upstream_on_allow or ()),
        denial_headers=_names(spec.headers_to_downstream_on_deny or ()),
        answer_headers=_names(spec.headers_to_downstream_on_allow or ()),
    )


def _body(spec: EnvoyExternalAuthorizationRequestBody | None) -> ir.ShownBody | None:
    """Nothing is shown of a body of which nothing may be."""
    if spec is None or not spec.max_request_bytes:
        return None
    return ir.ShownBody(
        max_bytes=spec.max_request_bytes,
        partial=bool(spec.allow_partial_message),
        as_bytes=bool(spec.pack_as_bytes),
    )


def _names(headers: Iterable[str]) -> tuple[ir.TextMatch, ...]:
    """Tests of names; a ``*`` may begin or end one."""
    return tuple(_name(header) for header in headers)


def _name(header: str) -> ir.TextMatch:
    if header.startswith("*"):
        return ir.TextMatch(test=ir.TextTest.SUFFIX, value=header[1:], ignore_case=True)
    if header.endswith("*"):
        return ir.TextMatch(test=ir.TextTest.PREFIX, value=header[:-1], ignore_case=True)
    return ir.TextMatch(test=ir.TextTest.EXACT, value=header, ignore_case=True)
