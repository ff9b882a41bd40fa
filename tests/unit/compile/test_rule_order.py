"""Several VirtualServices for one host in the mesh: which one is asked, and what becomes of other hosts."""

# ruff: noqa: E501  (resources stand on one line)

from __future__ import annotations

import pytest
from tests.support.compiled import host, listener, proxy, service, table, world

from weft import ir

KNOWN, ALSO = service("known", 80), service("also", 80)
KNOWN_HOST, ALSO_HOST = "known.default.svc.cluster.local", "also.default.svc.cluster.local"
OLD, NEW = "2020-01-01T00:00:00Z", "2024-01-01T00:00:00Z"


def rule(
    name: str,
    hosts: str,
    status: int,
    created: str = OLD,
    *,
    namespace: str = "default",
    more: str = "",
    match: str = "",
) -> str:
    meta = f"{{name: {name}, namespace: {namespace}, creationTimestamp: '{created}'}}"
    answer = f"{{{match}directResponse: {{status: {status}}}}}"
    return f"apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {meta}\nspec: {{hosts: {hosts}, http: [{answer}]{more}}}\n"


def statuses(
    *texts: str, port: str = "80", node: str = "sidecar~10.9.9.9~client.default"
) -> dict[str, int | None]:
    """What is answered, by domain; None where a service itself answers."""
    hosts = table(proxy(world(*texts), node), port).virtual_hosts
    return {
        domain: action.status if isinstance(action := item.routes[0].action, ir.Respond) else None
        for item in hosts
        for domain in item.domains
    }


def test_the_older_holds_whichever_namespace_it_is_in() -> None:
    one = rule("a", f"[{KNOWN_HOST}]", 201, NEW)
    other = rule("b", f"[{KNOWN_HOST}]", 202, OLD, namespace="elsewhere")
    assert statuses(KNOWN, one, other)[KNOWN_HOST] == 202


def test_a_private_one_goes_before_those_for_all() -> None:
    private = rule("z", f"[{KNOWN_HOST}]", 203, NEW, more=", exportTo: ['.']")
    meant = rule("m", f"[{KNOWN_HOST}]", 202, NEW, namespace="elsewhere", more=", exportTo: [default]")
    public = rule("a", f"[{KNOWN_HOST}]", 201, OLD)
    assert statuses(KNOWN, public, meant, private)[KNOWN_HOST] == 203
    assert statuses(KNOWN, public, meant)[KNOWN_HOST] == 202
    assert statuses(KNOWN, public, meant, private, node="sidecar~10.9.9.9~client.third")[KNOWN_HOST] == 201


def test_of_the_same_age_the_first_by_name() -> None:
    one = rule("b", f"[{KNOWN_HOST}]", 201, namespace="aaa")
    other = rule("a", f"[{KNOWN_HOST}]", 202, namespace="zzz")
    assert statuses(KNOWN, one, other)[KNOWN_HOST] == 202


@pytest.mark.parametrize("older", [0, 1])
def test_an_exact_name_goes_before_a_wildcard(older: int) -> None:
    times = (OLD, NEW) if older == 0 else (NEW, OLD)
    wild = rule("w", "['*.cluster.local']", 201, times[0])
    exact = rule("e", f"[{KNOWN_HOST}]", 202, times[1])
    found = statuses(KNOWN, ALSO, wild, exact)
    assert (found[KNOWN_HOST], found[ALSO_HOST]) == (202, 201)
    assert "*.cluster.local" not in found


def test_the_longer_wildcard_holds_and_it_alone() -> None:
    short = rule("a", "['*.local']", 201, OLD)
    long = rule("b", "['*.default.svc.cluster.local']", 202, NEW, match="match: [{port: 81}], ")
    # The longer one says nothing about this port: the service answers itself, not the shorter one (Istio).
    assert statuses(KNOWN, short, long)[KNOWN_HOST] is None
    assert statuses(KNOWN, short)[KNOWN_HOST] == 201


def test_names_that_no_service_has_are_at_port_80_or_beside_those_that_some_has() -> None:
    web = service("web", 8080)
    alone = rule("a", "[foo.example.com]", 201)
    assert statuses(KNOWN, web, alone)["foo.example.com"] == 201
    assert "foo.example.com" not in statuses(KNOWN, web, alone, port="8080")
    both = rule("a", "[foo.example.com, web]", 201)
    assert statuses(KNOWN, web, both, port="8080")["foo.example.com"] == 201
    wild = rule("a", "['*.example.com']", 201)
    assert statuses(KNOWN, web, wild)["*.example.com"] == 201


def test_what_a_sidecar_lets_through_of_a_rule_is_all_of_it() -> None:
    scope = f"apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: s}}\nspec: {{egress: [{{hosts: ['*/{KNOWN_HOST}']}}]}}\n"
    found = statuses(KNOWN, ALSO, scope, rule("a", f"[{KNOWN_HOST}, {ALSO_HOST}]", 201))
    assert (found[KNOWN_HOST], found[ALSO_HOST]) == (201, 201)


DB = service("db", 5432, port_name="tcp", clusterIP="10.1.0.1")


def stream(name: str, hosts: str, body: str, created: str = OLD) -> str:
    meta = f"{{name: {name}, creationTimestamp: '{created}'}}"
    return f"apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {meta}\nspec: {{hosts: {hosts}, {body}}}\n"


def to(subset: str) -> str:
    return f"route: [{{destination: {{host: db, subset: {subset}}}}}]"


def chains(*texts: str) -> list[tuple[ir.ChainMatch, str]]:
    opened = listener(proxy(world(DB, *texts)), "10.1.0.1_5432")
    found = [*opened.chains, *([opened.default_chain] if opened.default_chain else [])]
    return [
        (chain.match, chain.handler.destinations[0].cluster.split("|")[2])
        for chain in found
        if isinstance(chain.handler, ir.TcpHandler)
        and chain.handler.destinations[0].cluster != "PassthroughCluster"
    ]


def test_streams_ask_every_rule_that_means_the_service() -> None:
    match = "tcp: [{match: [{%s}], %s}]"
    some = stream("a", "[db]", match % ("destinationSubnets: [10.1.0.0/24]", to("one")))
    wild = stream("b", "['*.default.svc.cluster.local']", match % ("port: 5432", to("two")), NEW)
    here = ir.ChainMatch(addresses=("10.1.0.0/24",))
    assert chains(some, wild) == [(here, "one"), (ir.ChainMatch(), "two")]
    # What no rule takes goes to the service itself.
    assert chains(some) == [(here, "one"), (ir.ChainMatch(), "")]
    assert chains(stream("a", "[db]", f"tcp: [{{{to('all')}}}]"), wild) == [(ir.ChainMatch(), "all")]


def test_callers_are_told_apart_by_their_subnet() -> None:
    tcp = f"tcp: [{{match: [{{sourceSubnet: 10.5.0.0/16}}], {to('near')}}}, {{{to('rest')}}}]"
    assert chains(stream("a", "[db]", tcp)) == [
        (ir.ChainMatch(source_addresses=("10.5.0.0/16",)), "near"),
        (ir.ChainMatch(), "rest"),
    ]


def test_no_sni_is_taken_twice() -> None:
    """Envoy would refuse the listener, and with it every other change."""
    secure = service("db", 5432, port_name="tls", clusterIP="10.1.0.1")
    match = "{{match: [{{sniHosts: [{}]}}], {}}}".format
    sni = f"tls: [{match('a.com, b.com', to('one'))}, {match('b.com, c.com', to('two'))}]"
    hosts = "[db, a.com, b.com, c.com]"
    opened = listener(proxy(world(secure, stream("a", hosts, sni))), "10.1.0.1_5432")
    assert [chain.match.server_names for chain in opened.chains] == [("a.com", "b.com"), ("c.com",)]


def test_what_the_caller_is_decides_before_any_request() -> None:
    body = f"tcp: [{{match: [{{sourceLabels: {{app: x}}}}], {to('x')}}}, {{match: [{{sourceNamespace: other}}], {to('other')}}}]"
    text = stream("a", "[db]", body)

    def subset(node: str, **labels: str) -> str:
        opened = listener(proxy(world(DB, text), node, labels=labels), "10.1.0.1_5432")
        (chain,) = opened.chains
        assert isinstance(chain.handler, ir.TcpHandler)
        return chain.handler.destinations[0].cluster.split("|")[2]

    assert subset("sidecar~10.9.9.9~client.default", app="x") == "x"
    assert subset("sidecar~10.9.9.9~client.other") == "other"
    assert subset("sidecar~10.9.9.9~client.default") == ""


def test_a_catch_all_ends_the_rules_of_its_service_only() -> None:
    made = proxy(world(KNOWN, ALSO, rule("a", "[known]", 201), rule("b", "[also]", 202)))
    routes = {name: host(table(made, "80"), name).routes for name in (KNOWN_HOST, ALSO_HOST)}
    assert [len(found) for found in routes.values()] == [1, 1]
