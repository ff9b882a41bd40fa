"""VirtualServices that delegate: whose rules hold, with which match, and what is reported."""

from __future__ import annotations

from datetime import timedelta
from textwrap import indent

import pytest
import yaml
from tests.support.compiled import forward, host, identity, proxy, resources, service, table, world

from weft import ir
from weft.compile.proxy import compile_proxy
from weft.compile.world import World
from weft.model.virtual_service import VirtualService

REVIEWS, RATINGS, OTHER = (
    service("reviews", 9080),
    service("ratings", 9080),
    service("ratings", 9080, namespace="other"),
)
HOST = "reviews.default.svc.cluster.local"


def resource(name: str, http: str, *, namespace: str = "default", more: str = "") -> str:
    head = f"kind: VirtualService\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n"
    rules = indent(http.strip(), "  ")
    return f"apiVersion: networking.istio.io/v1\n{head}{indent(more, '  ')}\n  http:\n{rules}\n"


def root(http: str) -> str:
    return resource("root", http, more="hosts: [reviews]")


def routes(*texts: str) -> tuple[ir.Route, ...]:
    made = proxy(world(REVIEWS, RATINGS, OTHER, *texts))
    return host(table(made, "9080"), HOST).routes


def found(*texts: str) -> list[str]:
    _, problems = compile_proxy(world(REVIEWS, RATINGS, OTHER, *texts), identity())
    return [f"{problem.code} {problem.path} {problem.message}" for problem in problems]


TO = "route: [{destination: {host: ratings}}]"


def test_the_delegates_rules_stand_in_the_place_of_the_roots() -> None:
    before, there, after = routes(
        root(f"""
- match: [{{uri: {{exact: /first}}}}]
  {TO}
- match: [{{uri: {{prefix: /team}}}}]
  name: team
  timeout: 3s
  delegate: {{name: team, namespace: other}}
- {TO}
"""),
        resource(
            "team",
            f"- match: [{{uri: {{prefix: /team/a}}, headers: {{x: {{exact: b}}}}}}]\n  name: a\n  {TO}",
            namespace="other",
        ),
    )
    assert before.match.path.value == "/first"
    assert there.match.path.value == "/team/a"
    assert [header.name for header in there.match.headers] == ["x"]
    assert there.name == "team-a"
    # Its own short names are of its own namespace; what it does not say, the root says.
    assert forward(there).destinations[0].cluster == "outbound|9080||ratings.other.svc.cluster.local"
    assert forward(there).timeout == timedelta(seconds=3)
    # Where a reader finds it: the root's rule and the root's match.
    assert there.source == ir.Source(
        path="/apis/networking.istio.io/v1/namespaces/default/virtual-service/root", rule=1, match=0
    )
    assert after.source == ir.Source(path=there.source.path, rule=2)


def test_a_delegate_alone_has_no_hosts_and_does_nothing() -> None:
    (route,) = routes(resource("team", f"- {TO}"))
    assert route.name == "default"


@pytest.mark.parametrize(
    ("whole", "part", "fits"),
    [
        ("uri: {prefix: /a}", "uri: {prefix: /a/b}", True),
        ("uri: {prefix: /a}", "uri: {exact: /a/b}", True),
        ("uri: {prefix: /a/b}", "uri: {prefix: /a}", False),
        ("uri: {exact: /a}", "uri: {exact: /a}", True),
        ("uri: {exact: /a}", "uri: {prefix: /a}", False),
        ("uri: {regex: /a.*}", "uri: {exact: /a}", False),
        ("uri: {prefix: /a}", "uri: {regex: /a.*}", False),
        ("uri: {regex: /a.*}", "method: {exact: GET}", True),
        ("headers: {x: {exact: a}}", "headers: {x: {exact: b}}", False),
        ("headers: {x: {exact: a}}", "headers: {y: {exact: b}}", True),
        ("queryParams: {q: {prefix: a}}", "queryParams: {q: {exact: ab}}", True),
        ("withoutHeaders: {x: {exact: a}}", "withoutHeaders: {x: {exact: b}}", False),
        ("port: 9080", "port: 9081", False),
        ("{uri: {prefix: /a}, ignoreUriCase: true}", "uri: {prefix: /a}", False),
        ("sourceNamespace: default", "sourceNamespace: default", True),
        ("sourceNamespace: default", "uri: {prefix: /a}", False),
        ("gateways: [mesh]", "gateways: [other/edge]", False),
    ],
)
def test_a_rule_that_contradicts_its_root_is_left_out(whole: str, part: str, fits: bool) -> None:
    texts = (
        root(f"- match:\n  - {whole}\n  delegate: {{name: team}}\n- {TO}"),
        resource("team", f"- match:\n  - {part}\n  name: team\n  {TO}"),
    )
    assert (routes(*texts)[0].name == "team") is fits
    assert any("WEFT0110 spec.http[0].delegate" in line for line in found(*texts)) is not fits


def test_every_match_of_the_root_that_fits_is_kept() -> None:
    made = routes(
        root("- match: [{port: 9080}, {method: {exact: GET}}, {uri: {exact: /b}}]\n  delegate: {name: team}"),
        resource("team", f"- match: [{{uri: {{exact: /a}}}}]\n  {TO}"),
    )
    assert [(route.match.path.value, len(route.match.headers)) for route in made] == [("/a", 0), ("/a", 1)]
    assert [route.source.match for route in made if route.source] == [0, 1]


def test_what_leads_to_no_delegate_is_left_out_and_reported() -> None:
    texts = (
        root(f"""
- match: [{{uri: {{exact: /1}}}}]
  delegate: {{name: team, namespace: hidden}}
- match: [{{uri: {{exact: /2}}}}]
  delegate: {{name: tem}}
- match: [{{uri: {{exact: /3}}}}]
  delegate: {{name: root}}
- {TO}
"""),
        resource("team", f"- {TO}", namespace="hidden", more="exportTo: ['.']"),
        resource("team", f"- {TO}"),
    )
    (last,) = routes(*texts)
    assert last.source is not None
    assert last.source.rule == 3
    assert [line.split(":")[0] for line in found(*texts)] == [
        "IST0101 spec.http[0].delegate VirtualService hidden/team is not exported to default",
        "IST0101 spec.http[1].delegate no VirtualService is named default/tem",
        "IST0101 spec.http[2].delegate VirtualService default/root has hosts, so it is no delegate",
    ]


def test_delegates_that_lead_to_each_other_end() -> None:
    """Such are refused where they are written; what an older store may hold does no harm."""
    texts = (
        root(f"- delegate: {{name: one}}\n- {TO}"),
        resource("one", f"- delegate: {{name: two}}\n- match: [{{uri: {{exact: /x}}}}]\n  {TO}"),
        resource("two", "- delegate: {name: one}"),
    )
    circle = [VirtualService.model_validate(yaml.safe_load(text)) for text in texts]
    of = World.build([*resources(REVIEWS, RATINGS), *circle])
    made, problems = compile_proxy(of, identity())
    kept = host(table(made, "9080"), HOST).routes
    assert [route.match.path.value for route in kept] == ["/x", "/"]
    assert len([problem for problem in problems if "a delegate cannot delegate" in problem.message]) == 2


def test_of_many_rules_that_contradict_one_a_few_are_told() -> None:
    rules = "\n".join(
        "- {match: [{uri: {prefix: /no}}], route: [{destination: {host: ratings}}]}" for _ in range(9)
    )
    said = found(root("- {match: [{uri: {prefix: /yes}}], delegate: {name: part}}"), resource("part", rules))
    assert len(said) == 6
    assert "4 more rules of default/part ask" in said[-1]
