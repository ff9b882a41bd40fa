"""Persistent sessions: what an endpoint answers names it, and the client's next requests go there.

The filter is disabled wherever a route does not ask for it.
"""

from __future__ import annotations

from typing import Final

from weft.emit.scalars import duration
from weft.ir.route import Route, SessionIn, SessionPersistence
from weft.protos import core_v3, http_type_v3, session_cookie_v3, session_header_v3, stateful_session_v3
from weft.protos.wire import pack

NAME: Final = "envoy.filters.http.stateful_session"


def base() -> stateful_session_v3.StatefulSession:
    """No session but on routes that have one."""
    return stateful_session_v3.StatefulSession()


def per_route(route: Route) -> stateful_session_v3.StatefulSessionPerRoute | None:
    """The sessions of one route."""
    session = route.session
    if session is None:
        return None
    made = stateful_session_v3.StatefulSessionPerRoute()
    made.stateful_session.strict = session.strict
    made.stateful_session.session_state.CopyFrom(_state(session))
    return made


def _state(session: SessionPersistence) -> core_v3.TypedExtensionConfig:
    if session.place is SessionIn.HEADER:
        header = session_header_v3.HeaderBasedSessionState(name=session.name)
        return core_v3.TypedExtensionConfig(
            name="envoy.http.stateful_session.header", typed_config=pack(header)
        )
    cookie = http_type_v3.Cookie(
        name=session.name,
        path=session.path,
        attributes=[
            http_type_v3.CookieAttribute(name=name, value=value) for name, value in session.attributes
        ],
    )
    if session.lifetime is not None:
        cookie.ttl.CopyFrom(duration(session.lifetime))
    return core_v3.TypedExtensionConfig(
        name="envoy.http.stateful_session.cookie",
        typed_config=pack(session_cookie_v3.CookieBasedSessionState(cookie=cookie)),
    )
