"""``kubectl auth whoami`` and ``kubectl auth can-i``: who calls, what it may do, and what others may."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from weft.control.api.negotiate import read_json
from weft.control.api.permission import Access
from weft.control.api.resources import reply
from weft.control.api.roles import Decision
from weft.control.api.rules import Ask
from weft.control.api.status import ApiError, bad_request
from weft.control.api.subject import Subject

_AUTHENTICATION: Final = "authentication.k8s.io"
_AUTHORIZATION: Final = "authorization.k8s.io"
_PARTS: Final = ("group", "resource", "subresource", "namespace", "name")


async def _body(request: Request) -> dict[str, Any]:
    if request.method != "POST":
        raise ApiError(405, "a review is created: send POST")
    body = read_json(await request.body(), request.headers.get("content-type", ""))
    if not isinstance(body, dict) or not all(
        isinstance(body.get(part) or {}, dict) for part in ("metadata", "spec")
    ):
        raise bad_request("the body is no review")
    return body


def _answer(group: str, kind: str, body: dict[str, Any], status: dict[str, Any]) -> Response:
    metadata = {"creationTimestamp": None, **(body.get("metadata") or {})}
    review = {"apiVersion": f"{group}/v1", "kind": kind, "metadata": metadata, "status": status}
    if "spec" in body:
        review["spec"] = body["spec"]
    return reply(review, 201)


async def who(request: Request) -> Response:
    """SelfSubjectReview."""
    body = await _body(request)
    await _allow(request, _AUTHENTICATION, "selfsubjectreviews")
    subject: Subject = request.state.subject
    user = {"username": subject.name, "groups": list(subject.groups)}
    return _answer(_AUTHENTICATION, "SelfSubjectReview", body, {"userInfo": user})


async def may(request: Request) -> Response:
    """SelfSubjectAccessReview."""
    body = await _body(request)
    access = await _allow(request, _AUTHORIZATION, "selfsubjectaccessreviews")
    decision = await access.decide(_asked(body.get("spec") or {}))
    return _answer(_AUTHORIZATION, "SelfSubjectAccessReview", body, _status(decision))


async def others_may(request: Request) -> Response:
    """SubjectAccessReview: about somebody else, for those who may know."""
    body = await _body(request)
    access = await _allow(request, _AUTHORIZATION, "subjectaccessreviews")
    return await _about(access, body, "SubjectAccessReview")


async def others_may_here(request: Request) -> Response:
    """LocalSubjectAccessReview: within one namespace."""
    body = await _body(request)
    namespace = request.path_params["namespace"]
    access = await _allow(request, _AUTHORIZATION, "localsubjectaccessreviews", namespace)
    wanted = (body.get("spec") or {}).get("resourceAttributes")
    if not isinstance(wanted, dict) or wanted.get("namespace") != namespace:
        raise bad_request(f"spec.resourceAttributes.namespace must be {namespace}")
    return await _about(access, body, "LocalSubjectAccessReview")


async def _about(access: Access, body: dict[str, Any], kind: str) -> Response:
    spec = body.get("spec") or {}
    groups = spec.get("groups") or []
    if not isinstance(groups, list) or not (spec.get("user") or groups):
        raise bad_request("spec.user or spec.groups is missing")
    subject = Subject(name=str(spec.get("user") or ""), groups=tuple(map(str, groups)))
    decision = await access.roles.decide(subject, _asked(spec))
    return _answer(_AUTHORIZATION, kind, body, _status(decision))


async def rules(request: Request) -> Response:
    """SelfSubjectRulesReview."""
    body = await _body(request)
    access = await _allow(request, _AUTHORIZATION, "selfsubjectrulesreviews")
    namespace = str((body.get("spec") or {}).get("namespace") or "")
    if not namespace:
        raise bad_request("no namespace on request")
    held = [rule.wire() for rule in await access.roles.rules(access.subject, namespace)]
    status = {
        "resourceRules": [rule for rule in held if "nonResourceURLs" not in rule],
        "nonResourceRules": [rule for rule in held if "nonResourceURLs" in rule],
        "incomplete": False,
    }
    return _answer(_AUTHORIZATION, "SelfSubjectRulesReview", body, status)


async def _allow(request: Request, group: str, resource: str, namespace: str = "") -> Access:
    access: Access = request.state.access
    await access.require(Ask(verb="create", group=group, resource=resource, namespace=namespace))
    return access


def _asked(spec: dict[str, Any]) -> Ask:
    about, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if isinstance(about, dict) and path is None:
        parts = {part: str(about.get(part) or "") for part in _PARTS}
        return Ask(verb=str(about.get("verb") or ""), **parts)
    if isinstance(path, dict) and about is None:
        return Ask(verb=str(path.get("verb") or ""), path=str(path.get("path") or "/"))
    raise bad_request("exactly one of resourceAttributes and nonResourceAttributes is needed")


def _status(decision: Decision) -> dict[str, Any]:
    return {"allowed": decision.allowed, **({"reason": decision.reason} if decision.reason else {})}
