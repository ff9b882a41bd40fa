"""Filters that are put beside those of a class, whatever those are called (EnvoyFilter's ``filterClass``)."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from weft.emit.patches.value import value_of
from weft.ir.patch import FilterClass, Operation, Patch
from weft.protos import ext_authz_network_v3, ext_authz_v3, jwt_authn_v3, rbac_filter_v3, rbac_network_v3
from weft.protos.wire import type_url

PUTTING: Final = frozenset(
    {Operation.ADD, Operation.INSERT_FIRST, Operation.INSERT_BEFORE, Operation.INSERT_AFTER}
)

Parts = Any
"""A repeated field of filters."""


def _types(kind: FilterClass) -> frozenset[str]:
    """Configurations of the filters after which a class is put."""
    authentication = frozenset({type_url(jwt_authn_v3.JwtAuthentication())})
    if kind is FilterClass.AUTHN:
        return authentication
    return authentication | {
        type_url(message)
        for message in (
            rbac_filter_v3.RBAC(),
            rbac_network_v3.RBAC(),
            ext_authz_v3.ExtAuthz(),
            ext_authz_network_v3.ExtAuthz(),
        )
    }


class Placed:
    """Puts filters into one chain; those of a class stand in the order of their patches."""

    def __init__(self) -> None:
        self._put: Counter[FilterClass] = Counter()

    def put(self, parts: Parts, patch: Patch) -> None:
        """Before what counts requests, and the last filter; or after those that say who may do what.

        Raises:
            PatchError: the value cannot be read.
        """
        value = value_of(patch)
        if value is None or patch.filter_class is None:
            return
        parts.insert(self._place(parts, patch.filter_class), value)
        self._put[patch.filter_class] += 1

    def _place(self, parts: Parts, kind: FilterClass) -> int:
        if kind is FilterClass.STATS:  # requests are counted by the log, after all filters
            return max(0, len(parts) - 1)
        wanted = _types(kind)
        # A filter that routes switch on is a route's own: it decides for nobody else.
        found = (
            index
            for index, part in enumerate(parts)
            if part.typed_config.type_url in wanted and not getattr(part, "disabled", False)
        )
        start = max(found, default=None)
        if start is None:  # nobody is authenticated or authorized here
            return self._put[FilterClass.AUTHN] + (self._put[kind] if kind is FilterClass.AUTHZ else 0)
        return start + 1 + self._put[kind]
