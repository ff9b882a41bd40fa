"""``weft analyze``: what it reads, filters and prints, and that no input makes it fail."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weft.analysis.analyze import Filter, Input
from weft.analysis.analyze import analyze as run
from weft.analysis.codes import CODES
from weft.cli.analyze import analyze
from weft.errors import Severity
from weft.model.parse import Part, unwrap
from weft.yaml import load

SOURCE = Path(__file__).parents[3] / "src" / "weft"

SHOP = """\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports:
    - {name: http, port: 9080}
    - {name: web, port: 81}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: reviews
spec:
  hosts: [reviews]
  gateways:
    - mesh
    - edge
  http:
    - route:
        - destination:
            host: ratings
"""


def weft(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(analyze, list(arguments), input=stdin, standalone_mode=False)


def rows(*arguments: str, stdin: str = "") -> list[dict[str, str]]:
    done = weft(*arguments, "-o", "json", stdin=stdin)
    assert done.exception is None, done.exception
    found = json.loads(done.stdout)
    assert isinstance(found, list)
    return found


def parts_of(text: str) -> list[Part]:
    return [part for document in load(text, "f.yaml")[0] for part in unwrap(document)[0]]


@pytest.fixture
def shop(tmp_path: Path) -> str:
    file = tmp_path / "shop.yaml"
    file.write_text(SHOP)
    return str(file)


def test_a_finding_as_json(shop: str) -> None:
    found = rows(shop)
    assert found[0] == {
        "code": "IST0101",
        "level": "Error",
        "message": "there is no Gateway 'edge'",
        "origin": "VirtualService default/reviews",
        "reference": f"{shop}:18",
        "documentationUrl": "https://istio.io/latest/docs/reference/config/analysis/ist0101/",
    }
    assert [(item["code"], item["reference"]) for item in found] == [
        ("IST0101", f"{shop}:18"),
        ("IST0101", f"{shop}:22"),
        ("IST0132", f"{shop}:18"),
        ("IST0118", f"{shop}:8"),
    ]


def test_the_exit_code_goes_by_the_failure_threshold(shop: str) -> None:
    assert weft(shop).return_value == 1
    assert weft(shop, "-S", "IST0101=*").return_value == 0
    assert weft(shop, "-S", "IST0101=*", "--failure-threshold", "WARNING").return_value == 1
    # What is not shown counts nevertheless, as in istioctl.
    assert weft(shop, "--output-threshold", "error", "--failure-threshold", "info").return_value == 1


def test_the_output_threshold(shop: str) -> None:
    assert {item["level"] for item in rows(shop, "--output-threshold", "Warning")} == {"Error", "Warning"}


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("IST0101=VirtualService default/reviews", False),
        ("IST0101=VirtualService default/*", False),
        ("IST0101=VirtualService reviews.default", False),
        ("IST0101=VirtualService *.default", False),
        ("IST0101=Service default/reviews", True),
        ("IST0101=VirtualService other/*", True),
    ],
)
def test_suppressed_on_the_command_line(shop: str, pattern: str, left: bool) -> None:
    assert any(item["code"] == "IST0101" for item in rows(shop, "-S", pattern)) is left


@pytest.mark.parametrize(
    ("said", "codes"),
    [("'IST0101, IST0132'", {"IST0118"}), ("'*'", {"IST0118"}), ("IST0132", {"IST0101", "IST0118"})],
)
def test_suppressed_by_the_resource(said: str, codes: set[str]) -> None:
    annotations = f"annotations: {{galley.istio.io/analyze-suppress: {said}}}"
    text = SHOP.replace("metadata:\n  name: reviews", f"metadata:\n  name: reviews\n  {annotations}")
    assert {item["code"] for item in rows("-", stdin=text)} == codes


def test_a_namespace(shop: str) -> None:
    other = (
        "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: other}\nspec: {ports: [{port: 1}]}\n"
    )
    text = f"{SHOP}---\n{other}"
    everything = {item["origin"] for item in rows("-", stdin=text)}
    assert everything == {"VirtualService default/reviews", "Service default/reviews", "Service other/a"}
    assert {item["origin"] for item in rows("-", "-n", "other", stdin=other)} == {"Service other/a"}
    # What names no namespace belongs to the one that is asked for.
    assert {item["origin"] for item in rows("-", "-n", "other", stdin=text)} == {
        "VirtualService other/reviews",
        "Service other/reviews",
        "Service other/a",
    }


def test_nothing_found_is_an_empty_list() -> None:
    assert rows("-", stdin="") == []
    done = weft("-", "-o", "yaml", stdin="")
    assert (done.stdout, done.return_value) == ("[]\n", 0)


def test_as_text(shop: str) -> None:
    line = f"Error [IST0101] (VirtualService default/reviews {shop}:18) there is no Gateway 'edge'"
    assert line in weft(shop).stdout.splitlines()


def test_yaml_says_the_same_as_json(shop: str) -> None:
    assert yaml.safe_load(weft(shop, "-o", "yaml").stdout) == rows(shop)


def test_the_schema_and_the_rules() -> None:
    text = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a}
spec: {hosts: [reviews], htpp: []}
---
apiVersion: v1
kind: Service
metadata: {name: b}
spec: {ports: [{port: many}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualServce
metadata: {name: c}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: d}
metadata: {name: e}
---
[1, 2]
"""
    found = {(item["code"], item["origin"]) for item in rows("-", stdin=text)}
    assert found >= {
        ("IST0106", "VirtualService default/a"),
        ("WEFT0011", "Service default/b"),
        ("WEFT0014", "VirtualServce default/c"),
        ("WEFT0015", ""),
        ("WEFT0010", ""),
    }
    unread = {"WEFT0010", "WEFT0015"}
    assert unread <= {code for code, _ in found}
    assert not unread & {item["code"] for item in rows("-", "--ignore-unknown", stdin=text)}


def test_what_weft_itself_finds() -> None:
    route = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: weft
  listeners: [{name: web, port: 80, protocol: HTTP, hostname: shop.example.com}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: a}
spec:
  parentRefs: [{name: edge}]
  hostnames: [news.example.com]
  rules: [{backendRefs: [{name: nobody, port: 80}]}]
"""
    found = rows("-", stdin=route)
    assert {(item["origin"], item["reference"]) for item in found} == {
        ("HTTPRoute default/a", "-:13"),
        ("HTTPRoute default/a", "-:15"),
    }
    # The status says the same; what was told with its path is not told again.
    assert len(found) == 2
    assert "Service default/nobody" in found[0]["message"]


def test_files_that_are_a_part(shop: str) -> None:
    for option in ("--partial", "--live=false", "--use-kube=false"):
        assert [(item["code"], item["reference"]) for item in rows(shop, option)] == [
            ("IST0101", f"{shop}:18"),
            ("IST0132", f"{shop}:18"),
        ]


def test_what_is_no_configuration_is_skipped(tmp_path: Path) -> None:
    notes = tmp_path / "notes.md"
    notes.write_text("# Notes\n")
    done = weft(str(notes), "-o", "json")
    assert (done.return_value, done.stdout, done.stderr.startswith(f"skipped {notes}")) == (0, "[]\n", True)


def test_it_says_what_may_have_been_meant() -> None:
    text = SHOP.replace("host: ratings", "host: revews").replace("    - edge", "    - egde")
    gateway = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [reviews]}]
"""
    messages = [item["message"] for item in rows("-", stdin=f"{text}---{gateway}")]
    assert "destination: no service is named 'revews' (did you mean 'reviews'?)" in messages
    assert "there is no Gateway 'egde' (did you mean 'edge'?)" in messages


RULES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a}
spec:
  hosts: [reviews]
  http:
    - route: [{destination: {host: reviews}}]
    - match: [{uri: {prefix: /a}}]
      route: [{destination: {host: reviews}}]
"""


def test_one_kind_by_its_schema_and_rules() -> None:
    broken = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: b}\nspec: {selektor: {}}\n"
    for kind, codes in (("VirtualService", {"IST0130"}), ("Gateway", {"IST0106"}), ("Sidecar", set())):
        found = rows("-", "--analyzer", f"schema.ValidationAnalyzer.{kind}", stdin=f"{RULES}---\n{broken}")
        assert {item["code"] for item in found} == codes
        assert all(item["level"] == CODES[item["code"]].level for item in found)


SETTINGS = (
    "defaultConfig: {proxyMetadata: {ISTIO_META_DNS_CAPTURE: 'true', ISTIO_META_DNS_AUTO_ALLOCATE: 'true'}}"
)
ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a}
spec: {hosts: [db.example.com], resolution: DNS, ports: [{number: 1, name: sql, protocol: TCP}]}
"""


@pytest.mark.parametrize("form", ["a file", "a MeshConfig", "a ConfigMap"])
def test_settings_of_the_mesh(tmp_path: Path, form: str) -> None:
    own = f"apiVersion: weft.dev/v1alpha1\nkind: MeshConfig\nmetadata: {{name: mesh}}\nspec: {{{SETTINGS}}}\n"
    head = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\n"
    text = {"a file": "", "a MeshConfig": own, "a ConfigMap": f'{head}data: {{mesh: "{SETTINGS}"}}\n'}[form]
    file = tmp_path / "mesh.yaml"
    file.write_text(SETTINGS)
    options = ["--meshConfigFile", str(file)] if form == "a file" else []
    asked = ["-", "--analyzer", "serviceentry.Analyzer"]
    assert [item["code"] for item in rows(*asked, stdin=ENTRY)] == ["IST0134"]
    assert rows(*asked, *options, stdin=f"{ENTRY}---\n{text}") == []


def test_one_resource_twice() -> None:
    text = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n"
    (found,) = rows("-", stdin=f"{text}---\n{text}")
    assert (found["code"], found["reference"]) == ("WEFT0022", "-:1")
    assert "-:5" in found["message"]


def test_the_list_of_codes() -> None:
    listed = json.loads(weft("-L", "-o", "json").stdout)
    assert [item["code"] for item in listed] == list(CODES)
    assert {item["level"] for item in listed} == {level.value for level in Severity}
    assert "IST0101   Error    ReferencedResourceNotFound" in weft("-L").stdout


@pytest.mark.parametrize(
    "arguments",
    [("-S", "IST0101"), ("--analyzer", "gateway.Analyser"), ("--live=maybe",), ("--cluster", "files")],
)
def test_wrong_usage(shop: str, arguments: tuple[str, ...]) -> None:
    done = weft(shop, *arguments)
    assert getattr(done.exception, "exit_code", None) == 2
    assert getattr(done.exception, "hint", "")


def test_every_code_in_the_source_is_listed() -> None:
    used = {
        code
        for file in SOURCE.rglob("*.py")
        for code in re.findall(r'"((?:WEFT|IST)\d{4})"', file.read_text())
    }
    assert used == CODES.keys()


def test_live_objects_give_way_to_files() -> None:
    live = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "a"},
        "spec": {"ports": [{"port": 80}]},
    }
    assert [item.code for item in run(Input(live=[live], running=True))] == ["IST0118"]
    named = parts_of(
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80, name: http}]}"
    )
    assert run(Input(parts=named, live=[live], running=True)) == ()


def test_a_defect_of_an_analyzer_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    from weft.analysis import analyze as module
    from weft.analysis.analyzers import ANALYZERS, Analyzer

    def broken(scene: object) -> object:
        raise RuntimeError("oh")

    every = (Analyzer("broken", broken), *ANALYZERS)  # type: ignore[arg-type]
    monkeypatch.setattr(module, "ANALYZERS", every)
    found = run(Input(parts=parts_of(SHOP)))
    assert [item.message for item in found if item.code == "IST0001"] == ["broken failed: RuntimeError: oh"]
    assert any(item.code == "IST0101" for item in found)


_NAMES = """
spec metadata name namespace labels annotations selector servers port number hosts tls http route match
destination host subset gateways subsets rules from source workloadSelector matchLabels ports template
containers status conditions parents listeners webhooks clientConfig configPatches patch value data
"""
WORDS = st.sampled_from(_NAMES.split())
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 70_000) | st.sampled_from(["", "*", "a", "a/b", "~", "x.y"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=25,
)
KINDS = st.sampled_from(
    [
        ("v1", "Service"),
        ("v1", "Pod"),
        ("v1", "Namespace"),
        ("v1", "Secret"),
        ("v1", "ConfigMap"),
        ("apps/v1", "Deployment"),
        ("networking.istio.io/v1", "VirtualService"),
        ("networking.istio.io/v1", "DestinationRule"),
        ("networking.istio.io/v1", "Gateway"),
        ("networking.istio.io/v1", "ServiceEntry"),
        ("networking.istio.io/v1", "Sidecar"),
        ("networking.istio.io/v1alpha3", "EnvoyFilter"),
        ("security.istio.io/v1", "AuthorizationPolicy"),
        ("telemetry.istio.io/v1", "Telemetry"),
        ("gateway.networking.k8s.io/v1", "Gateway"),
        ("gateway.networking.k8s.io/v1", "HTTPRoute"),
        ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
    ]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(KINDS, st.dictionaries(WORDS, VALUES, max_size=4)), max_size=6))
def test_no_input_makes_it_fail(documents: list[tuple[tuple[str, str], dict[str, object]]]) -> None:
    texts = []
    for index, ((version, kind), body) in enumerate(documents):
        metadata = body.get("metadata") if isinstance(body.get("metadata"), dict) else {}
        head = {"apiVersion": version, "kind": kind, "metadata": {**metadata, "name": f"a{index % 3}"}}  # type: ignore[dict-item]
        texts.append(json.dumps({**body, **head}))
    found = run(Input(parts=parts_of("\n---\n".join(texts))), Filter())
    assert not [item for item in found if item.code in {"IST0001", "WEFT0026"}], found
