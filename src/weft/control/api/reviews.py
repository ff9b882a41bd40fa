"""``kubectl auth whoami`` and ``kubectl auth can-i``: who calls, and what it may do."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from weft.control.api.negotiate import read_json
from weft.control.api.resources import reply
from weft.control.api.status import ApiError, bad_request
from weft.control.api.subject import READING, Role, Subject

_AUTHENTICATION: Final = "authentication.k8s.io/v1"
_AUTHORIZATION: Final = "authorization.k8s.io/v1"


async def _body(request: Request) -> dict[str, Any]:
    if request.method != "POST":
        raise ApiError(405, "a review is created: send POST")
    body = read_json(await request.body(), request.headers.get("content-type", ""))
    if not isinstance(body, dict) or not all(
        isinstance(body.get(part) or {}, dict) for part in ("metadata", "spec")
    ):
        raise bad_request("the body is no review")
    return body


def _answer(version: str, kind: str, body: dict[str, Any], status: dict[str, Any]) -> Response:
    metadata = {"creationTimestamp": None, **(body.get("metadata") or {})}
    review = {"apiVersion": version, "kind": kind, "metadata": metadata, "status": status}
    if "spec" in body:
        review["spec"] = body["spec"]
    return reply(review, 201)


async def who(request: Request) -> Response:
    """SelfSubjectReview."""
    body = await _body(request)
    subject: Subject = request.state.subject
    user = {"username": subject.name, "groups": [*subject.groups, "system:authenticated"]}
    return _answer(_AUTHENTICATION, "SelfSubjectReview", body, {"userInfo": user})


async def may(request: Request) -> Response:
    """SelfSubjectAccessReview."""
    body = await _body(request)
    subject: Subject = request.state.subject
    spec = body.get("spec") or {}
    wanted = spec.get("resourceAttributes") or spec.get("nonResourceAttributes") or {}
    if not isinstance(wanted, dict):
        raise bad_request("the body is no review")
    verb = str(wanted.get("verb", "*"))
    allowed = subject.may(verb)
    status: dict[str, Any] = {"allowed": allowed}
    if not allowed:
        status["reason"] = f"{subject.name} has the role {subject.role}"
    return _answer(_AUTHORIZATION, "SelfSubjectAccessReview", body, status)


async def rules(request: Request) -> Response:
    """SelfSubjectRulesReview."""
    body = await _body(request)
    subject: Subject = request.state.subject
    verbs = {Role.ADMIN: ["*"], Role.READER: sorted(READING), Role.NONE: []}[subject.role]
    status = {
        "resourceRules": [{"verbs": verbs, "apiGroups": ["*"], "resources": ["*"]}] if verbs else [],
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["*"]}],
        "incomplete": False,
    }
    return _answer(_AUTHORIZATION, "SelfSubjectRulesReview", body, status)
