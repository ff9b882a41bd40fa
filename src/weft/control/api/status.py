"""How the API says no: Kubernetes' ``Status`` objects (apimachinery pkg/api/errors)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from weft.errors import Problem
from weft.model.catalog import KindRow

_REASONS: Final = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class ApiError(Exception):
    """A refusal, as it goes over the wire."""

    def __init__(
        self, code: int, message: str, *, reason: str = "", details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason or _REASONS.get(code, "")
        self.details = dict(details or {})

    def body(self) -> dict[str, Any]:
        """The ``Status`` object."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            **({"details": self.details} if self.details else {}),
            "code": self.code,
        }


def success(row: KindRow, name: str, uid: str) -> dict[str, Any]:
    """What a deletion answers."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {**_about(row, name), "uid": uid},
    }


def resource_name(row: KindRow) -> str:
    """``virtualservices.networking.istio.io``; ``services``."""
    return f"{row.plural}.{row.group}" if row.group else row.plural


def _about(row: KindRow, name: str) -> dict[str, Any]:
    return {"name": name, **({"group": row.group} if row.group else {}), "kind": row.plural}


def bad_request(message: str) -> ApiError:
    """400."""
    return ApiError(400, message)


def not_found(row: KindRow, name: str) -> ApiError:
    """404 for an object."""
    return ApiError(404, f'{resource_name(row)} "{name}" not found', details=_about(row, name))


def no_such_path() -> ApiError:
    """404 for a path, in the words that clients look for."""
    return ApiError(404, "the server could not find the requested resource")


def already_exists(row: KindRow, name: str) -> ApiError:
    """409 for a creation."""
    message = f'{resource_name(row)} "{name}" already exists'
    return ApiError(409, message, reason="AlreadyExists", details=_about(row, name))


def conflict(row: KindRow, name: str, why: str) -> ApiError:
    """409 for a change of what has changed or belongs to somebody else."""
    message = f'Operation cannot be fulfilled on {resource_name(row)} "{name}": {why}'
    return ApiError(409, message, details=_about(row, name))


def modified(row: KindRow, name: str) -> ApiError:
    """409 because the caller saw an older state."""
    why = "the object has been modified; please apply your changes to the latest version and try again"
    return conflict(row, name, why)


def invalid(row: KindRow, name: str, problems: Iterable[Problem]) -> ApiError:
    """422 with one cause a problem."""
    problems = tuple(problems)
    texts = [cause_text(problem) for problem in problems]
    what = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    causes = [cause(problem) for problem in problems]
    # Here Kubernetes gives the kind's own name; elsewhere the plural.
    details = {**_about(row, name), "kind": row.kind, "causes": causes}
    return ApiError(422, f'{row.kind} "{name}" is invalid: {what}', details=details)


def cause(problem: Problem) -> dict[str, Any]:
    """One ``StatusCause``; weft adds the code of the problem and the remedy."""
    return {
        "reason": "FieldValueInvalid",
        "message": _with_hint(problem),
        "field": problem.path,
        "code": problem.code,
    }


def cause_text(problem: Problem) -> str:
    """``spec.http[0].retries: message (hint)``."""
    return f"{problem.path}: {_with_hint(problem)}" if problem.path else _with_hint(problem)


def _with_hint(problem: Problem) -> str:
    return f"{problem.message} ({problem.hint})" if problem.hint else problem.message


def expired(message: str) -> ApiError:
    """410: list again."""
    return ApiError(410, message)


def phrase(code: int) -> str:
    """HTTP's own words for a code."""
    try:
        return HTTPStatus(code).phrase
    except ValueError:
        return "error"
