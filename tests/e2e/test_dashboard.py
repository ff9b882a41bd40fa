"""The dashboard of a real mesh in a real browser."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from playwright.sync_api import Browser, Error, expect
from tests.support.browser import Watched, browser, enter, serious
from tests.support.mesh import WEFT, Mesh, Output, up, wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.getuid() != 0, reason="needs root"),
]

HOSTILE = "\"'><img src=x onerror=alert(1)><script>alert(2)</script>{{7*7}}"
SECRET = "a-value-that-nobody-may-see"


def part(name: str) -> str:
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: http, port: 8080}}]
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {{name: {name}-v1, namespace: shop, labels: {{app: {name}, version: v1}}}}
spec:
  command: [{sys.executable}, -m, weft, echo, --name, {name}, --namespace, shop]
  serviceAccount: {name}
  ports: [{{name: http, port: 8080}}]
  env: [{{name: PASSWORD, value: {SECRET}}}]
  readinessProbe: {{httpGet: {{path: /, port: http}}, periodSeconds: 1}}
---"""


SHOP = f"""{part("web")}{part("api")}
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge, namespace: shop}}
spec:
  selector: {{istio: ingressgateway}}
  servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: ["*"]}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: edge, namespace: shop, annotations: {{note: {json.dumps(HOSTILE)}}}}}
spec:
  hosts: ["*"]
  gateways: [edge]
  http:
  - match: [{{uri: {{prefix: /api}}}}]
    route: [{{destination: {{host: api}}}}]
  - route: [{{destination: {{host: web}}}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: keep-out, namespace: shop}}
spec:
  selector: {{matchLabels: {{app: api}}}}
  action: DENY
  rules: [{{to: [{{operation: {{paths: ["/api/denied*"]}}}}]}}]
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {{name: every-trace, namespace: istio-system}}
spec: {{tracing: [{{randomSamplingPercentage: 100}}]}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: lost, namespace: shop}}
spec: {{host: nowhere}}
---
apiVersion: v1
kind: Secret
metadata: {{name: hidden, namespace: shop}}
stringData: {{password: {SECRET}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: vera, namespace: shop}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: vera}}]
"""

LATE = """
apiVersion: v1
kind: Service
metadata: {name: late, namespace: shop}
spec: {ports: [{name: http, port: 8080}]}
"""

PLAIN = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: plain, namespace: shop}
spec: {host: api, trafficPolicy: {tls: {mode: DISABLE}}}
"""

PAGES = {
    "overview": "/",
    "graph": "/graph",
    "traces": "/traces",
    "services": "/services",
    "service": "/services/shop/api",
    "workloads": "/workloads",
    "workload": "/workloads/shop/api-v1",
    "configuration": "/configuration",
    "resources": "/configuration/workloads.weft.dev",
    "resource": "/configuration/virtualservices.networking.istio.io/shop/edge",
    "proxies": "/proxies",
    "proxy": "/proxies/shop/api-v1-0?section=cluster",
    "explain": "/explain?role=gateway&from=istio-system/istio-ingressgateway&url=http://any/api/denied&method=GET",
    "security": "/security",
}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    path = tmp_path_factory.mktemp("dashboard") / "shop.yaml"
    path.write_text(SHOP)
    with up(path) as running:
        for place in ("/api/a", "/", "/api/denied", f"/api/denied/{quote(HOSTILE)}"):
            send(running, place, 5)
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def tab(mesh: Mesh, chromium: Browser) -> Watched:
    link = mesh.output.wait_for(r"dashboard, for one browser: (\S+)")[1]
    return enter(chromium.new_context(viewport={"width": 1280, "height": 860}, reduced_motion="reduce"), link)


@pytest.fixture(autouse=True)
def no_complaint(tab: Watched) -> Iterator[None]:
    tab.complaints.clear()
    yield
    assert tab.complaints == []


def send(mesh: Mesh, path: str, count: int) -> None:
    for _ in range(count):
        asked = urllib.request.Request(mesh.url + path, headers={"user-agent": HOSTILE})
        try:
            urllib.request.urlopen(asked, timeout=10).close()
        except urllib.error.HTTPError as error:
            error.close()


def ask(base: str, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    """A request that no browser would make; header names with ``_`` for ``-``."""
    connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=10)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers=named)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def cookie(tab: Watched) -> str:
    (one,) = tab.page.context.cookies()
    assert one["httpOnly"]
    assert one["sameSite"] == "Strict"
    return f"{one['name']}={one['value']}"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_in_both_colours_and_on_a_phone(tab: Watched, name: str) -> None:
    page = tab.go(PAGES[name])
    expect(page.locator("h1")).to_be_visible()
    expect(page.locator("#pulse")).to_have_attribute("data-state", re.compile("live|still"))
    tab.shoot(f"{name}-light")
    assert serious(page) == []
    page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    tab.shoot(f"{name}-dark")
    page.set_viewport_size({"width": 400, "height": 800})
    tab.shoot(f"{name}-phone")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert serious(page) == []
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    page.set_viewport_size({"width": 1280, "height": 860})


def test_it_is_live(mesh: Mesh, tab: Watched) -> None:
    page = tab.go("/services?window=6h")
    row = page.locator("tr[data-key='shop/web']")
    expect(row.locator("td.num").nth(1)).to_have_text("100 %", timeout=30_000)
    page.evaluate("document.body.dataset.mark = 'the same document'")
    mesh.weft("apply", "-f", "-", stdin=LATE)
    expect(page.locator("tr[data-key='shop/late']")).to_be_visible(timeout=30_000)
    assert page.evaluate("document.body.dataset.mark") == "the same document"


def test_what_a_workload_uses(tab: Watched) -> None:
    page = tab.go("/workloads/shop/api-v1")
    cells = page.locator("#usage tr[data-key='api-v1-0'] td.num")
    # CPU and memory of the application, then of its sidecar.
    expect(cells).to_have_text([re.compile(one) for one in (r"^<?\d+m$", r"^\d+ MB$") * 2], timeout=30_000)
    page = tab.go("/workloads")
    row = page.locator("#workloads tr[data-key='shop/api-v1']")
    expect(row.get_by_title("sidecars: ").last).to_have_text(re.compile(r"^\d+ MB$"), timeout=30_000)


def test_from_a_list_to_the_cause_by_keyboard_alone(tab: Watched) -> None:
    page = tab.go("/services")
    page.keyboard.press("/")
    page.keyboard.type("api")
    expect(page.locator("#services tbody tr:visible")).to_have_count(1)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url("**/services/shop/api")
    expect(page.get_by_role("link", name="AuthorizationPolicy keep-out").first).to_be_visible()
    page.go_back()
    expect(page.get_by_label("Filter services")).to_have_value("api")
    expect(page.locator("#services tbody tr:visible")).to_have_count(1)


def test_tables_sort(tab: Watched) -> None:
    page = tab.go("/services")
    head = page.get_by_role("columnheader", name="Service")
    head.get_by_role("button").click()
    expect(head).to_have_attribute("aria-sort", "ascending")
    head.get_by_role("button").click()
    expect(head).to_have_attribute("aria-sort", "descending")
    names = page.locator("#services tbody th").all_inner_texts()
    assert names == sorted(names, reverse=True)


def test_the_switch_of_colours_is_remembered(tab: Watched) -> None:
    page = tab.go("/proxies")
    background = "getComputedStyle(document.documentElement).backgroundColor"
    light = page.evaluate(background)
    switch = page.locator("#theme")
    while switch.get_attribute("aria-label") != "Colours: dark":
        switch.click()
    dark = page.evaluate(background)
    assert dark != light
    page.reload()
    assert page.evaluate(background) == dark
    while switch.get_attribute("aria-label") != "Colours: as the system":
        switch.click()
    assert page.evaluate(background) == light


def test_what_is_hostile_is_inert(mesh: Mesh, tab: Watched) -> None:
    page = tab.go("/security")
    expect(page.locator("#denied")).to_contain_text("/api/denied", timeout=30_000)
    expect(page.locator("#denied").get_by_role("link", name="keep-out")).to_be_visible()

    def traced() -> int:
        send(mesh, "/api/a", 1)
        return tab.go("/traces?service=shop/api").locator("#traces tbody a").count()

    assert wait_until(traced, "no trace of it", 60)
    page.locator("#traces tbody a").first.click()
    page.wait_for_url(re.compile(r"/traces/[0-9a-f]{32}"))
    page.get_by_role("button", name="Open all").click()
    expect(page.locator("#spans")).to_contain_text("<img src=x onerror=alert(1)>")
    page = tab.go("/configuration/virtualservices.networking.istio.io/shop/edge")
    expect(page.locator("pre")).to_contain_text("<img src=x onerror=alert(1)>")
    tab.go("/services?q=" + quote(HOSTILE) + "&namespace=" + quote(HOSTILE) + "&window=" + quote(HOSTILE))
    tab.go("/explain?from=a/b&url=" + quote(HOSTILE))
    expect(page.get_by_label("URL")).to_have_value(HOSTILE)
    assert page.locator("img").count() == 0
    assert page.locator("script:not([src])").count() == 0


def test_the_policy_of_content_holds(tab: Watched) -> None:
    """Even what were to come through is not run."""
    page = tab.go("/")
    with pytest.raises(Error, match="TrustedHTML"):
        page.evaluate("document.body.innerHTML = '<img src=x onerror=alert(1)>'")
    page.evaluate("document.body.append(Object.assign(document.createElement('style'), {textContent: ''}))")
    page.evaluate("fetch('https://example.com/').catch(() => 0)")
    assert [one for one in tab.complaints if "Content Security Policy" in one or "TrustedHTML" in one]
    assert not [one for one in tab.complaints if "dialog" in one]
    tab.complaints.clear()


def test_secrets_are_not_shown(tab: Watched) -> None:
    for path in ("secrets/shop/hidden", "workloads.weft.dev/shop/api-v1"):
        page = tab.go(f"/configuration/{path}")
        expect(page.locator("pre")).to_contain_text("(hidden)")
        assert SECRET not in page.content()


def test_only_who_came_in_sees_anything(mesh: Mesh, tab: Watched) -> None:
    base, ours = tab.base, cookie(tab)
    used = mesh.output.wait_for(r"dashboard, for one browser: \S+(/enter\S+)")[1]
    assert ask(base, "/", cookie=ours)[0] == 200
    assert ask(base, "/")[0] == 401
    assert ask(base, "/", cookie=ours[:-1])[0] == 401
    assert ask(base, "/data/workloads")[0] == 401
    assert ask(base, used)[0] == 401, "the link works once"
    assert ask(base, "/enter?token=")[0] == 401
    assert ask(base, "/", cookie=ours, host="evil.example")[0] == 421
    assert ask(base, "/", cookie=ours, sec_fetch_site="cross-site")[0] == 403
    assert ask(base, "/data/changes/../../api/v1/secrets", cookie=ours)[0] == 404
    assert ask(base, "/data/ca", cookie=ours)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_nothing_can_be_changed_through_it(tab: Watched, method: str) -> None:
    assert ask(tab.base, "/configuration/secrets/shop/hidden", method, cookie=cookie(tab))[0] == 405


def test_from_a_denial_to_its_policy(mesh: Mesh, tab: Watched) -> None:
    """One click, from the overview."""
    send(mesh, "/api/denied", 1)
    page = tab.go("/")
    page.get_by_role("link", name="api denies istio-system/").click(timeout=30_000)
    expect(page.get_by_role("heading", level=1)).to_have_text("keep-out")
    page.go_back()
    expect(page.locator("#concerns")).to_be_visible()


def test_from_a_red_number_to_its_cause(mesh: Mesh, tab: Watched) -> None:
    """Two clicks: the service, and what has its callers speak plain text."""
    page = tab.go("/?window=5m&namespace=shop")
    mesh.weft("apply", "-f", "-", "--wait", stdin=PLAIN)
    try:
        send(mesh, "/api/a", 40)
        red = page.locator("#concerns").get_by_role("link", name="api: more requests fail")
        red.click(timeout=30_000)
        page.wait_for_url("**/services/shop/api?namespace=shop&window=5m")
        cause = page.locator("#causes li", has_text="do not speak mutual TLS")
        expect(cause).to_contain_text("says tls DISABLE")
        tab.shoot("cause")
        cause.get_by_role("link", name="DestinationRule plain").click()
        expect(page.locator("pre")).to_contain_text("mode: DISABLE")
    finally:
        mesh.weft("delete", "destinationrule", "plain", "-n", "shop")


@contextmanager
def dashboard(server: str) -> Iterator[str]:
    """``weft dashboard`` as a user starts it; ended by Ctrl-C."""
    process = subprocess.Popen(
        [*WEFT, "dashboard", "--no-open", "--server", server],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        yield Output(process).wait_for(r"dashboard: (\S+)")[1]
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stdout is not None
        process.stdout.close()


def test_a_viewer_sees_what_it_may(mesh: Mesh, chromium: Browser, tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    mesh.weft("user", "create", "vera", "--kubeconfig", str(file))
    with dashboard(str(file)) as link:
        context = chromium.new_context()
        hers = enter(context, link)
        page = hers.go("/configuration/virtualservices.networking.istio.io?namespace=shop")
        expect(page.get_by_role("link", name="edge")).to_be_visible()
        page = hers.go("/configuration/secrets/shop/hidden")
        expect(page.locator("main")).to_contain_text("your role does not allow")
        expect(page.locator("pre")).to_have_count(0)
        page = hers.go("/explain?role=inbound&from=shop/api-v1-0&url=http://api:8080/")
        expect(page.locator("main")).to_contain_text("your role does not allow")
        context.close()
        assert hers.complaints == []
