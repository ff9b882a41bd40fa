"""AuthorizationPolicies: which are for a proxy, and what their rules fit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import re2
from tests.support.compiled import identity, instance, listener, service, world

from weft import ir
from weft.compile.istio import authorization_spelling as spelling
from weft.compile.istio import authorization_value as values_of
from weft.compile.istio.authorization_value import issuer_and_subject, names_in_brackets, trust_domain
from weft.compile.istio.trust_domain import every_alias, with_aliases
from weft.compile.proxy import compile_proxy
from weft.compile.world import World
from weft.model.authorization_policy import AuthorizationPolicy
from weft.model.resource import Key

WEB = "sidecar~10.0.0.1~web-0.shop"
ATTACHED = "{targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: %s}]}"
KIND = "security.istio.io/AuthorizationPolicy"


def policy(name: str, namespace: str = "shop", spec: str = "{}", dry_run: str = "") -> str:
    """A policy, as YAML."""
    noted = f', annotations: {{istio.io/dry-run: "{dry_run}"}}' if dry_run else ""
    return f"""
        apiVersion: security.istio.io/v1
        kind: AuthorizationPolicy
        metadata: {{name: {name}, namespace: {namespace}{noted}}}
        spec: {spec}
    """


def stages(
    of: World, *, tcp: bool = False, labels: str = "web", node: str = WEB
) -> tuple[ir.Authorization, ...]:
    """What stands before the requests, or the connections, of a workload."""
    proxy, _ = compile_proxy(of, identity(node, {"app": labels}))
    kind = ir.TcpHandler if tcp else ir.HttpHandler
    found = {
        chain.handler.authorization
        for chain in listener(proxy, "virtualInbound").chains
        if isinstance(chain.handler, kind) and "blackhole" not in chain.name
    }
    (only,) = found
    return only


def names(rules: ir.AccessRules | None) -> list[str]:
    """The policies and rules in them."""
    return [rule.name for rule in rules.rules] if rules else []


def rule(name: str, number: int = 0, namespace: str = "shop") -> str:
    return f"ns[{namespace}]-policy[{name}]-rule[{number}]"


def test_stages_come_in_order_and_root_policies_are_among_them() -> None:
    of = world(
        policy("list"),
        policy("mesh", "istio-system", "{action: DENY, rules: [{}]}"),
        policy("log", spec="{action: AUDIT, rules: [{}]}"),
        policy("elsewhere", "other"),
        policy("of-cart", spec="{selector: {matchLabels: {app: cart}}}"),
        policy(
            "of-edge", spec="{targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}]}"
        ),
    )
    audit, deny, allow = stages(of)
    assert [stage.enforced.action for stage in (audit, deny, allow) if stage.enforced] == list(
        reversed(ir.RuleAction)
    )
    assert names(deny.enforced) == [rule("mesh", namespace="istio-system")]
    assert names(allow.enforced) == [rule("list")]


def test_a_policy_without_rules_lets_nothing_pass_and_one_with_an_empty_rule_everything() -> None:
    (stage,) = stages(world(policy("nothing"), policy("all", spec="{rules: [{}]}")))
    assert stage.enforced is not None
    nothing, everything = sorted(stage.enforced.rules, key=lambda one: one.name, reverse=True)
    assert nothing.permissions == nothing.principals == (ir.Not(test=ir.Anything()),)
    assert everything.permissions == everything.principals == (ir.AllOf(tests=(ir.Anything(),)),)


@pytest.mark.parametrize(("said", "tried"), [("true", True), ("T", True), ("1", True), ("false", False)])
def test_a_dry_run_is_beside_what_is_in_force(said: str, tried: bool) -> None:
    (stage,) = stages(world(policy("in-force"), policy("tried", dry_run=said)))
    assert (names(stage.shadow) == [rule("tried")]) is tried
    assert len(names(stage.enforced)) == 2 - tried
    assert stage.shadow_prefix == ("istio_dry_run_allow_" if tried else "")


def test_connections_have_no_method() -> None:
    rules = "{rules: [{to: [{operation: {methods: [GET]}}]}, {to: [{operation: {ports: ['9']}}]}]}"
    (allow,) = stages(world(policy("a", spec=rules)), tcp=True)
    assert names(allow.enforced) == [rule("a", 1)]
    rules = "{action: DENY, rules: [{to: [{operation: {methods: [GET], ports: ['9']}}]}]}"
    (deny,) = stages(world(policy("a", spec=rules)), tcp=True)
    assert deny.enforced is not None
    port = ir.AnyOf(tests=(ir.PortMatch(number=9),))
    assert deny.enforced.rules[0].permissions == (ir.AllOf(tests=(port,)),)


def test_outbound_listeners_and_unread_mtls_are_not_guarded() -> None:
    of = world(policy("nothing", "default"), service("web"), service("db", 9, port_name="tcp"))
    proxy, _ = compile_proxy(of, identity())
    for one in proxy.listeners:
        for chain in one.chains:
            guarded = bool(chain.handler.authorization)
            assert guarded == (one.direction is ir.Direction.INBOUND and "blackhole" not in chain.name)


def test_a_moved_port_is_the_one_that_is_declared() -> None:
    rules = "{rules: [{to: [{operation: {ports: ['8080', '18080']}}]}]}"
    of = world(
        policy("a", "default", rules),
        service("web", 8080),
        instance("web-0", "web", "10.0.0.1", ports="{http: 8080}"),
    )
    place = ir.Attachment(
        capture=ir.Capture.SECCOMP, inbound_address="127.9.9.9", inbound_ports=((8080, 18080),)
    )
    proxy, _ = compile_proxy(of, identity("sidecar~10.0.0.1~web-0.default", {"app": "web"}, place))
    (one,) = (one for one in proxy.listeners if one.direction is ir.Direction.INBOUND)
    (stage,) = {chain.handler.authorization for chain in one.chains}
    assert stage[0].enforced is not None
    never = ir.Not(test=ir.Anything())
    assert stage[0].enforced.rules[0].permissions == (
        ir.AllOf(tests=(ir.AnyOf(tests=(ir.Anything(), never)),)),
    )


def test_what_is_not_meant_by_a_change_stays_the_same_object() -> None:
    of = world(policy("a"), policy("b", "other"), policy("c", "istio-system", "{rules: [{}]}"))
    before = compile_proxy(of, identity(WEB))[0]
    other = world(policy("b", "other", "{rules: [{}]}")).all(AuthorizationPolicy)
    after = of.replace(other.values())
    assert compile_proxy(after, identity(WEB))[0].listeners == before.listeners
    assert all(
        one is two
        for one, two in zip(compile_proxy(after, identity(WEB))[0].listeners, before.listeners, strict=True)
    )
    gone = after.replace((), [Key(KIND, "shop", "a")])
    assert compile_proxy(gone, identity(WEB))[0].listeners != before.listeners


def test_the_same_identity_in_each_trust_domain() -> None:
    domains = ("new", "old")
    assert with_aliases(("old/ns/a/sa/b",), domains) == ("new/ns/a/sa/b", "old/ns/a/sa/b")
    assert with_aliases(("cluster.local/ns/a/sa/b",), domains) == ("new/ns/a/sa/b", "old/ns/a/sa/b")
    assert with_aliases(("foreign/ns/a/sa/b", "*/ns/a/sa/b", "*"), domains) == (
        "foreign/ns/a/sa/b", "*/ns/a/sa/b", "*",
    )  # fmt: skip
    assert every_alias(("old", "foreign"), domains) == ("new", "old", "foreign")
    assert trust_domain("*.test").value == r"spiffe://[^/]*\.test/.*"


def test_issuers_have_slashes_and_subjects_have_none() -> None:
    issuer, subject = issuer_and_subject("https://issuer.example/ann")
    assert (issuer.value, subject.value) == ("https://issuer.example", "ann")
    issuer, subject = issuer_and_subject("https://issuer.example/*")
    assert (issuer.test, subject.value) == (ir.TextTest.EXACT, ".+")
    issuer, subject = issuer_and_subject("*/ann")
    assert (issuer.value, subject.value) == (".+", "ann")


def test_claims_lie_in_claims() -> None:
    assert names_in_brackets("[a][b.c]") == ("a", "b.c")
    assert names_in_brackets("[a[0]]") == ("a[0]",)
    assert names_in_brackets("a") is None


@pytest.mark.parametrize(
    ("value", "also", "never"),
    [
        ("/admin", ("/admin", "/admin/", "/admin;x", "/;a/admin", "/x/..;a/admin"), ("/admin/x", "/admins")),
        ("/a+b", ("/a+b", "/a%2bb", "/a%2Bb"), ("/a b", "/ab")),
        ("/x y", ("/x%20y",), ("/x+y",)),
        ("/%C3%A9", ("/%c3%A9",), ("/%C3",)),
        ("/secret/*", ("/secret/x", "/secret;a/x"), ("/secret", "/secrets/x")),
        ("*.key", ("/a.key", "/x/a.key/", "/a.key;x"), ("/a.keys", "/akey")),
        ("/u/{*}/p", ("/u/[1]/p", "/u;x/1/p/"), ("/u/1/2/p", "/u//p")),
        ("/v/{**}", ("/v/", "/v/a[b/c"), ("/v", "/w/x")),
        ("/", ("/", "/;x"), ("/x",)),
    ],
)
def test_paths_in_other_spellings(value: str, also: tuple[str, ...], never: tuple[str, ...]) -> None:
    found = spelling.path(value)
    assert found is not None
    assert [path for path in also if not re2.fullmatch(found.value, path)] == []
    assert [path for path in never if re2.fullmatch(found.value, path)] == []


@pytest.mark.parametrize(
    ("value", "also", "never"),
    [
        (
            "a.example",
            ("A.example", "a.example:80", "a.example.", "u@a.example"),
            ("ba.example", "a.examples"),
        ),
        ("a.example:8080", ("a.example:8080", "a.example.:08080"), ("a.example", "a.example:80")),
        ("a.example:*", ("a.example:1", "a.example.:1"), ("a.example",)),
        ("*.example", ("a.EXAMPLE:80",), ("example", "a.example.org")),
        ("ops.*", ("ops.a:80", "u@ops.a"), ("dev.ops.a",)),
        ("[::1]", ("[::1]", "[::1]:80"), ("::1",)),
    ],
)
def test_hosts_in_other_spellings(value: str, also: tuple[str, ...], never: tuple[str, ...]) -> None:
    found = spelling.host(value)
    assert found is not None
    assert [host for host in also if not re2.fullmatch(found.value, host)] == []
    assert [host for host in never if re2.fullmatch(found.value, host)] == []


@pytest.mark.parametrize("cut", range(505, 515))
@pytest.mark.parametrize(("part", "path"), [("%2B", "%2b"), ("/{*}/", "/x/"), ("/a", "/a")])
def test_long_paths_count_by_what_envoy_can_compare(part: str, path: str, cut: int) -> None:
    first, last = "/" + "a" * cut, "b" * 2000
    values = [(first + part + last, first + path + last)]
    if "{" not in part:  # a template begins with a slash
        values.append((f"*{last}{part}{first[1:]}", f"/x{last}{path}{first[1:]}"))
    for value, fits in values:
        found = spelling.path(value)
        assert found is not None
        assert pattern_size(found) < 32_000
        assert re2.fullmatch(found.value, fits)
        assert not re2.fullmatch(found.value, "/other")


@pytest.mark.parametrize("make", [spelling.host, spelling.method, spelling.header])
def test_long_values_count_by_what_envoy_can_compare(make: Callable[[str], ir.TextMatch | None]) -> None:
    for value in ("a" * 65_536, "*" + "a" * 65_536, "a" * 65_536 + "*"):
        found = make(value)
        assert found is not None
        assert pattern_size(found) < 32_000
        assert re2.fullmatch(found.value, value.replace("*", ""))
        assert not re2.fullmatch(found.value, "a" * 8000)


def test_names_longer_than_any_identity_are_nobodys() -> None:
    long = "a" * 65_536
    for found in (
        values_of.namespace(long),
        values_of.service_account(long, "x"),
        values_of.principal(f"*{long}"),
    ):
        assert found.test is ir.TextTest.EXACT


def pattern_size(match: ir.TextMatch) -> int:
    """How large Envoy finds it: it reads bytes, whose any is a dot there."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    return int(re2.compile(match.value.encode(), options).programsize)


def test_headers_with_underscores() -> None:
    assert list(spelling.header_names("x-user-role")) == ["x-user_role", "x_user-role", "x_user_role"]
    assert list(spelling.header_names("a-b-c-d-e")) == ["a_b_c_d_e"]
    assert list(spelling.header_names("role")) == []


def test_what_is_let_pass_counts_only_as_it_is_written() -> None:
    spec = "{action: %s, rules: [{to: [{operation: {paths: [/a], notPaths: [/b]}}]}]}"
    for action, respelt in (("ALLOW", "notPaths"), ("DENY", "paths"), ("AUDIT", "")):
        (stage,) = stages(world(policy("a", spec=spec % action)))
        assert stage.enforced is not None
        (test,) = stage.enforced.rules[0].permissions
        assert isinstance(test, ir.AllOf)
        paths, others = test.tests
        assert isinstance(paths, ir.AnyOf)
        assert isinstance(others, ir.Not)
        assert isinstance(others.test, ir.AnyOf)
        assert (len(paths.tests) > 1) == (respelt == "paths")
        assert (len(others.test.tests) > 1) == (respelt == "notPaths")


def test_gateways_by_name_and_by_label() -> None:
    of = world(
        """
        apiVersion: gateway.networking.k8s.io/v1
        kind: Gateway
        metadata: {name: edge, namespace: shop}
        spec: {gatewayClassName: weft, listeners: [{name: http, port: 80, protocol: HTTP}]}
        """,
        policy("attached", spec=ATTACHED % "edge"),
        policy("other", spec=ATTACHED % "other"),
        policy("labelled", spec="{selector: {matchLabels: {gateway.networking.k8s.io/gateway-name: edge}}}"),
        policy("foreign", "istio-system", ATTACHED % "edge"),
    )
    labels = {"gateway.networking.k8s.io/gateway-name": "edge"}
    proxy, _ = compile_proxy(of, identity("router~10.0.0.9~edge.shop", labels))
    (chain,) = listener(proxy, "0.0.0.0_80").chains
    assert [names(stage.enforced) for stage in chain.handler.authorization] == [
        [rule("attached"), rule("labelled")]
    ]


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ("{targetRefs: [{kind: Service, name: web}]}", "spec.targetRefs[0]"),
        ("{targetRef: {group: gateway.networking.k8s.io, kind: GatewayClass, name: weft}}", "spec.targetRef"),
        ("{rules: [{to: [{operation: {paths: [/a, '/b c']}}]}]}", "spec.rules[0].to[0].operation.paths[1]"),
        ("{action: DENY, rules: [{to: [{operation: {ports: ['80'], paths: ['{**}']}}]}]}",
         "spec.rules[0].to[0].operation.paths[0]"),
        ("{rules: [{to: [{operation: {paths: [//a]}}]}]}", "spec.rules[0].to[0].operation.paths[0]"),
        (
            "{action: DENY, rules: [{to: [{operation: {ports: ['80'], paths: ['/b c'], notPaths: [/é]}}]}]}",
            "spec.rules[0].to[0].operation.notPaths[0]",
        ),
        (
            "{rules: [{when: [{key: 'request.auth.claims[a][]', values: [b]}]}]}",
            "spec.rules[0].when[0].key",
        ),
        (ATTACHED % "edge", ""),
        ("{rules: [{to: [{operation: {paths: ['/caf%C3%A9', '/u/{*}/x', '/v/{**}', '*.css', '*']}}]}]}", ""),
    ],
)  # fmt: skip
def test_what_has_no_effect_is_told(spec: str, path: str) -> None:
    _, problems = compile_proxy(world(policy("a", spec=spec)), identity(WEB))
    assert [problem.path for problem in problems] == ([path] if path else [])


def test_a_template_that_would_crash_envoy_is_not_sent() -> None:
    (stage,) = stages(world(policy("a", spec="{rules: [{to: [{operation: {paths: ['a/{*}', '/b/{*}']}}]}]}")))
    assert stage.enforced is not None
    never, template = ir.Not(test=ir.Anything()), ir.PathTemplateMatch(template="/b/*")
    (test,) = stage.enforced.rules[0].permissions
    assert test == ir.AllOf(tests=(ir.AnyOf(tests=(never, template)),))
