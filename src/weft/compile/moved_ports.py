"""Access rules of listeners that are open at another port than the one they are for.

Rootless capture and port maps move ports. A rule speaks of the port that the workload or Gateway declares,
and Envoy of the one that the connection came to.
"""

from __future__ import annotations

from dataclasses import replace

from weft import ir
from weft.compile.memo import Memo

Moved = tuple[tuple[int, int], ...]
"""(port that is declared, port where it is open)."""

_NEVER = ir.Not(test=ir.Anything())


def declared(listeners: tuple[ir.Listener, ...], moved: Moved, memo: Memo) -> tuple[ir.Listener, ...]:
    """The listeners, with rules that see the declared port."""
    numbers = {at: port for port, at in moved if at != port}
    return tuple(
        memo(_listener, listener, numbers[listener.port])
        if listener.port in numbers and listener.direction is not ir.Direction.OUTBOUND
        else listener
        for listener in listeners
    )


def _listener(listener: ir.Listener, port: int) -> ir.Listener:
    return listener.with_chains(lambda chain: _chain(chain, port))


def _chain(chain: ir.FilterChain, port: int) -> ir.FilterChain:
    handler = chain.handler
    stages = tuple(
        replace(stage, enforced=_rules(stage.enforced, port), shadow=_rules(stage.shadow, port))
        for stage in handler.authorization
    )
    asked = tuple(replace(one, rules=_known(one.rules, port)) for one in handler.consultations)
    return replace(chain, handler=replace(handler, authorization=stages, consultations=asked))


def _rules(rules: ir.AccessRules | None, port: int) -> ir.AccessRules | None:
    return None if rules is None else _known(rules, port)


def _known(rules: ir.AccessRules, port: int) -> ir.AccessRules:
    return replace(
        rules,
        rules=tuple(
            replace(rule, permissions=tuple(_test(test, port) for test in rule.permissions))
            for rule in rules.rules
        ),
    )


def _test(test: ir.Test, port: int) -> ir.Test:
    """A test of the port comes out the same for every connection: there is one port here."""
    match test:
        case ir.PortMatch(number=number):
            return ir.Anything() if number == port else _NEVER
        case ir.AllOf(tests=tests):
            return ir.AllOf(tests=tuple(_test(one, port) for one in tests))
        case ir.AnyOf(tests=tests):
            return ir.AnyOf(tests=tuple(_test(one, port) for one in tests))
        case ir.Not(test=inner):
            return ir.Not(test=_test(inner, port))
    return test
