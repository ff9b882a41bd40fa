"""One rule of an AuthorizationPolicy: who may ask (principals), and for what (permissions).

Order and nesting are Istio's (pilot/pkg/security/authz/model): a rule looks the same in a config dump,
whichever of the two made it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from weft import ir
from weft.compile.chains import is_block
from weft.compile.istio import authorization_spelling as spelling
from weft.compile.istio import authorization_value as values_of
from weft.compile.istio.trust_domain import every_alias, with_aliases
from weft.model.authorization_policy import Operation, Rule, Source, WhenCondition
from weft.names import JWT_FILTER, JWT_PAYLOAD

_PORT_MAX: Final = 65535
_NEVER: Final[ir.Test] = ir.Not(test=ir.Anything())


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a rule means depends on the policy's ``namespace`` and on the accepted ``trust_domains``.

    ``tcp``: there are connections only. Where a demand cannot be met, a rule of action ``ALLOW`` fits
    nothing; of others the demand is left out, and the rule fits the more.
    """

    namespace: str
    trust_domains: tuple[str, ...]
    tcp: bool
    action: ir.RuleAction

    @property
    def strict(self) -> bool:
        """Whether a demand that cannot be met makes the rule fit nothing."""
        return self.action is ir.RuleAction.ALLOW

    def refuses(self, *, negated: bool) -> bool:
        """Whether what a test fits is refused: then it counts in every spelling."""
        return self.action is not ir.RuleAction.LOG and negated == self.strict


def access_rule(rule: Rule, name: str, bounds: Bounds) -> ir.AccessRule | None:
    """What the rule fits; None when it fits nothing that can come here."""
    conditions = [_condition(one) for one in rule.when or ()]
    known = [demand for demand in conditions if demand is not None]
    if len(known) < len(conditions):
        return None
    asked = tuple(demand for demand in known if not demand.attribute.of_caller)
    caller = tuple(demand for demand in known if demand.attribute.of_caller)
    operations = [tuple(_operation(to.operation)) for to in rule.to or ()] or [()]
    sources = [tuple(_source(item.source)) for item in rule.from_ or ()] or [()]
    permissions = [_all((*operation, *asked), bounds) for operation in operations]
    principals = [_all((*source, *caller), bounds) for source in sources]
    if None in permissions or None in principals:
        return None
    return ir.AccessRule(
        name=name,
        permissions=tuple(test for test in permissions if test is not None),
        principals=tuple(test for test in principals if test is not None),
    )


Alone = Callable[[str, str, Bounds], ir.Test | None]
"""The test for one of the values of an attribute (key, value, bounds); None when it cannot be met."""

Together = Callable[[str, tuple[str, ...], Bounds], ir.Test | None]
"""The test for all of them in one."""


@dataclass(frozen=True, slots=True)
class _Attribute:
    """How an attribute is tested: value by value, or all at once. ``widened``: what values mean in all of
    the accepted trust domains. ``respelt``: further tests for other spellings of a value.
    """

    alone: Alone | None = None
    together: Together | None = None
    of_caller: bool = True
    http: bool = False
    widened: Callable[[tuple[str, ...], tuple[str, ...]], tuple[str, ...]] | None = None
    respelt: Callable[[str, str], Iterable[ir.Test]] | None = None


@dataclass(frozen=True, slots=True)
class _Demand:
    """One of ``wanted`` fits, and none of ``refused``."""

    key: str
    attribute: _Attribute
    wanted: tuple[str, ...]
    refused: tuple[str, ...]

    def tests(self, bounds: Bounds) -> list[ir.Test] | None:
        """What must hold, all of it; None when that cannot be, and the bounds are strict."""
        found: list[ir.Test] = []
        for values, negated in ((self.wanted, False), (self.refused, True)):
            tests = [self._test(one, bounds) for one in self._together(values, bounds)]
            held = tuple(test for test in tests if test is not None)
            if bounds.strict and len(held) < len(tests):
                return None
            if held and bounds.refuses(negated=negated):
                held += self._respelt(values)
            if held:
                test = held[0] if self.attribute.together is not None else ir.AnyOf(tests=held)
                found.append(ir.Not(test=test) if negated else test)
        return found

    def _together(self, values: tuple[str, ...], bounds: Bounds) -> tuple[tuple[str, ...], ...]:
        """The values that are tested in one."""
        if self.attribute.widened is not None:
            values = self.attribute.widened(values, bounds.trust_domains)
        if self.attribute.together is not None:
            return (values,) if values else ()
        return tuple((value,) for value in values)

    def _respelt(self, values: tuple[str, ...]) -> tuple[ir.Test, ...]:
        respelt = self.attribute.respelt
        if respelt is None:
            return ()
        return tuple(test for value in values for test in respelt(self.key, value))

    def _test(self, values: tuple[str, ...], bounds: Bounds) -> ir.Test | None:
        attribute = self.attribute
        if attribute.http and bounds.tcp:
            return None
        if attribute.together is not None:
            return attribute.together(self.key, values, bounds)
        return attribute.alone(self.key, values[0], bounds) if attribute.alone is not None else None


def _all(demands: Iterable[_Demand], bounds: Bounds) -> ir.Test | None:
    found: list[ir.Test] = []
    for demand in demands:
        tests = demand.tests(bounds)
        if tests is None:
            return None
        found += tests
    return ir.AllOf(tests=tuple(found) or (ir.Anything(),))


def _source(source: Source | None) -> Iterator[_Demand]:
    if source is None:
        return
    yield from _demands("source.principal", source.principals, source.not_principals)
    yield from _demands("request.auth.principal", source.request_principals, source.not_request_principals)
    yield from _demands("source.serviceAccount", source.service_accounts, source.not_service_accounts)
    yield from _demands("source.trustDomain", source.trust_domains, source.not_trust_domains)
    yield from _demands("source.namespace", source.namespaces, source.not_namespaces)
    yield from _demands("remote.ip", source.remote_ip_blocks, source.not_remote_ip_blocks)
    yield from _demands("source.ip", source.ip_blocks, source.not_ip_blocks)


def _operation(operation: Operation | None) -> Iterator[_Demand]:
    if operation is None:
        return
    yield from _demands(":authority", operation.hosts, operation.not_hosts)
    yield from _demands(":method", operation.methods, operation.not_methods)
    yield from _demands(":path", operation.paths, operation.not_paths)
    yield from _demands("destination.port", operation.ports, operation.not_ports)


def _demands(key: str, wanted: tuple[str, ...] | None, refused: tuple[str, ...] | None) -> Iterator[_Demand]:
    if wanted or refused:
        yield _Demand(key, _ATTRIBUTES[key], wanted or (), refused or ())


def _condition(condition: WhenCondition) -> _Demand | None:
    """None when there is no such attribute."""
    key = condition.key
    attribute = None if key.startswith(":") else _ATTRIBUTES.get(key)
    if attribute is None:
        attribute = next((row for start, row in _PREFIXED.items() if key.startswith(start)), None)
    if attribute is None:
        return None
    return _Demand(key, attribute, condition.values or (), condition.not_values or ())


def _address(of: ir.AddressOf) -> Alone:
    def test(_: str, value: str, __: Bounds) -> ir.Test | None:
        if not is_block(value):
            return None
        return ir.AddressMatch(of=of, block=value)

    return test


def _port(_: str, value: str, __: Bounds) -> ir.Test | None:
    if not (value.isascii() and value.isdigit()) or int(value) > _PORT_MAX:
        return None
    return ir.PortMatch(number=int(value))


def _server_name(_: str, value: str, __: Bounds) -> ir.Test:
    return ir.ServerNameMatch(match=values_of.text(value))


def _principal(_: str, value: str, __: Bounds) -> ir.Test:
    return ir.PrincipalMatch(match=values_of.principal(value))


def _namespace(_: str, value: str, __: Bounds) -> ir.Test:
    return ir.PrincipalMatch(match=values_of.namespace(value))


def _service_account(_: str, value: str, bounds: Bounds) -> ir.Test:
    return ir.PrincipalMatch(match=values_of.service_account(value, bounds.namespace))


def _trust_domain(_: str, value: str, __: Bounds) -> ir.Test:
    return ir.PrincipalMatch(match=values_of.trust_domain(value))


def _host(key: str, value: str, _: Bounds) -> ir.Test:
    return ir.HeaderMatch(name=key, match=values_of.header(value, ignore_case=True))


def _method(key: str, value: str, _: Bounds) -> ir.Test:
    return ir.HeaderMatch(name=key, match=values_of.header(value))


def _path(_: str, value: str, __: Bounds) -> ir.Test:
    if "{*}" in value or "{**}" in value:
        if not value.startswith("/"):
            return _NEVER  # as no path begins otherwise; Envoy would crash
        return ir.PathTemplateMatch(template=value.replace("{*}", "*").replace("{**}", "**"))
    return ir.UrlPathMatch(match=values_of.text(value))


def _header(key: str, value: str, _: Bounds) -> ir.Test | None:
    name = values_of.name_in_brackets(key.removeprefix(_HEADERS))
    if not name:
        return None
    return ir.HeaderMatch(name=name.lower(), match=values_of.header(value))


def _other_paths(_: str, value: str) -> Iterator[ir.Test]:
    if (match := spelling.path(value)) is not None:
        yield ir.UrlPathMatch(match=match)


def _other_methods(key: str, value: str) -> Iterator[ir.Test]:
    if (match := spelling.method(value)) is not None:
        yield ir.HeaderMatch(name=key, match=match)


def _other_hosts(key: str, value: str) -> Iterator[ir.Test]:
    if (match := spelling.host(value)) is not None:
        yield ir.HeaderMatch(name=key, match=match)


def _other_headers(key: str, value: str) -> Iterator[ir.Test]:
    name = (values_of.name_in_brackets(key.removeprefix(_HEADERS)) or "").lower()
    match = spelling.header(value)
    if match is not None:
        yield ir.HeaderMatch(name=name, match=match)
    for other in spelling.header_names(name):
        yield ir.HeaderMatch(name=other, match=match or values_of.header(value))


def _claim(path: tuple[str, ...], value: ir.ValueMatch) -> ir.FactMatch:
    return ir.FactMatch(filter=JWT_FILTER, path=(JWT_PAYLOAD, *path), value=value)


def _in_list_or_alone(value: ir.ValueMatch) -> ir.ValueMatch:
    return ir.AnyValueMatch(tests=(ir.ListedMatch(item=value), value))


def _request_principal(_: str, values: tuple[str, ...], __: Bounds) -> ir.Test:
    found: list[ir.Test] = []
    for value in values:
        issuer, subject = values_of.issuer_and_subject(value)
        found.append(ir.AllOf(tests=(_claim(("iss",), issuer), _claim(("sub",), subject))))
    return found[0] if len(found) == 1 else ir.AnyOf(tests=tuple(found))


def _claims(path: tuple[str, ...], values: tuple[str, ...]) -> ir.Test:
    value = values_of.one_of([values_of.text(one) for one in values])
    return _claim(path, _in_list_or_alone(value))


def _audience(_: str, values: tuple[str, ...], __: Bounds) -> ir.Test:
    return _claims(("aud",), values)


def _presenter(_: str, values: tuple[str, ...], __: Bounds) -> ir.Test:
    return _claims(("azp",), values)


def _named_claim(key: str, values: tuple[str, ...], _: Bounds) -> ir.Test | None:
    path = values_of.names_in_brackets(key.removeprefix(_CLAIMS))
    if not path or not all(path):
        return None
    return _claims(path, values)


def _fact(key: str, values: tuple[str, ...], _: Bounds) -> ir.Test | None:
    """``experimental.envoy.filters.a.b[c]``: what a filter says; ``[v]`` is an item of a list."""
    name, found, field = key.removeprefix("experimental.").removesuffix("]").partition("[")
    if not found or not field:
        return None
    tests: list[ir.ValueMatch] = []
    for value in values:
        if value.startswith("[") and value.endswith("]"):
            tests.append(ir.ListedMatch(item=values_of.text(value.strip("[]"))))
        else:
            tests.append(values_of.text(value))
    return ir.FactMatch(filter=name, path=(field,), value=values_of.one_of(tests))


_HEADERS: Final = "request.headers"
_CLAIMS: Final = "request.auth.claims"
_ATTRIBUTES: Final[dict[str, _Attribute]] = {
    "source.principal": _Attribute(_principal, widened=with_aliases),
    "source.namespace": _Attribute(_namespace),
    "source.serviceAccount": _Attribute(_service_account),
    "source.trustDomain": _Attribute(_trust_domain, widened=every_alias),
    "source.ip": _Attribute(_address(ir.AddressOf.PEER)),
    "remote.ip": _Attribute(_address(ir.AddressOf.CLIENT)),
    "request.auth.principal": _Attribute(together=_request_principal, http=True),
    "request.auth.audiences": _Attribute(together=_audience, http=True),
    "request.auth.presenter": _Attribute(together=_presenter, http=True),
    "destination.ip": _Attribute(_address(ir.AddressOf.DESTINATION), of_caller=False),
    "destination.port": _Attribute(_port, of_caller=False),
    "connection.sni": _Attribute(_server_name, of_caller=False),
    ":authority": _Attribute(_host, of_caller=False, http=True, respelt=_other_hosts),
    ":method": _Attribute(_method, of_caller=False, http=True, respelt=_other_methods),
    ":path": _Attribute(_path, of_caller=False, http=True, respelt=_other_paths),
}
_PREFIXED: Final[dict[str, _Attribute]] = {
    "experimental.envoy.filters.": _Attribute(together=_fact, of_caller=False),
    _HEADERS: _Attribute(_header, http=True, respelt=_other_headers),
    _CLAIMS: _Attribute(together=_named_claim, http=True),
}
