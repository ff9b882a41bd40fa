"""The graph, traces and charts in a real browser, over a mesh that does not exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect
from tests.support.browser import Watched, browser, enter, serious
from tests.support.invented_dashboard import InventedClient, invented_dashboard
from tests.support.invented_mesh import TRACE, InventedMesh, city, shop, span, who

import weft.dashboard.live
from weft.errors import WeftError

HOSTILE = "\"'><img src=x onerror=alert(1)><script>alert(2)</script>"
ORDERS = "[data-node='service:shop/orders']"
SECONDS = 30_000
DESKTOP: ViewportSize = {"width": 1280, "height": 860}
PHONE: ViewportSize = {"width": 400, "height": 800}


@pytest.fixture(scope="module")
def mesh() -> InventedMesh:
    """What is told; tests may tell more."""
    return InventedMesh()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def tab(mesh: InventedMesh, chromium: Browser) -> Iterator[Watched]:
    with pytest.MonkeyPatch.context() as patch, invented_dashboard(mesh) as link:
        patch.setattr(weft.dashboard.live, "EVERY_S", 0.2)
        context = chromium.new_context(viewport=DESKTOP, reduced_motion="reduce")
        yield enter(context, link)
        context.close()


@pytest.fixture(autouse=True)
def fresh(tab: Watched, mesh: InventedMesh) -> Iterator[None]:
    """Each begins with the shop on a desktop, and ends without a complaint of the browser."""
    tell(mesh, shop())
    tab.page.set_viewport_size(DESKTOP)
    tab.page.emulate_media(color_scheme="light", reduced_motion="reduce")
    tab.complaints.clear()
    yield
    assert tab.complaints == []


def tell(mesh: InventedMesh, other: InventedMesh) -> None:
    vars(mesh).update(vars(other))


def boxes(page: Page) -> list[dict[str, float]]:
    """Where the nodes are on the screen."""
    found: list[dict[str, float]] = page.evaluate("""
        [...document.querySelectorAll('.graph-node > .frame:not(.behind)')].map((frame) => {
          const {left, right, top, bottom} = frame.getBoundingClientRect();
          return {left, right, top, bottom};
        })
    """)
    return found


def test_what_is_behind_a_node_and_a_line(tab: Watched) -> None:
    page = tab.go("/graph")
    expect(page.locator(".graph-node")).to_have_count(9)
    page.locator(ORDERS).hover()
    note = page.locator("#graph-note")
    for words in ("orders", "4.0 /s", "87.9 %", "380 ms", "shop/orders"):
        expect(note).to_contain_text(words)
    link = page.locator("[data-link='service:shop/orders service:shop/stock'] .hit")
    page.evaluate("document.querySelector('.graph-plot').dispatchEvent(new PointerEvent('pointerleave'))")
    link.dispatch_event(
        "pointermove", {"pointerType": "mouse", "bubbles": True, "clientX": 700, "clientY": 500}
    )
    expect(note).to_contain_text("orders → stock")
    expect(note).to_contain_text("mutual TLS for 40.0 % of it")
    page.locator(ORDERS).click()
    panel = page.get_by_role("complementary", name="Details")
    expect(panel).to_contain_text("87.9 %")
    expect(panel.locator(".sparkline")).to_have_count(2)
    expect(panel.get_by_role("link", name="Service")).to_have_attribute("href", "/services/shop/orders")
    expect(panel.get_by_role("link", name="Failed traces")).to_have_attribute(
        "href", "/traces?service=shop%2Forders&errors=1"
    )
    expect(panel.get_by_role("link", name="Explain a request")).to_be_visible()
    panel.get_by_role("button", name="ledger").click()
    expect(panel.get_by_role("heading", level=2)).to_have_text("ledger")
    assert "node=service" in page.url
    page.reload()
    expect(panel.get_by_role("heading", level=2)).to_have_text("ledger")
    page.keyboard.press("Escape")
    expect(panel).to_be_hidden()


def test_by_keyboard_alone(tab: Watched) -> None:
    page = tab.go("/graph")
    page.keyboard.press("/")
    page.keyboard.type("orders")
    expect(page.locator(".graph-node.found")).to_have_count(1)
    page.keyboard.press("Enter")
    expect(page.locator(ORDERS)).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(
        page.locator("[data-node='service:bank/ledger'], [data-node='service:shop/stock']").and_(
            page.locator(":focus")
        )
    ).to_have_count(1)
    page.locator(ORDERS).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("complementary", name="Details")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator(ORDERS)).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator("[data-node]:focus")).to_have_count(1)


def test_keys_are_told_and_lead_to_pages(tab: Watched) -> None:
    page = tab.go("/graph?window=5m")
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keys")
    expect(dialog).to_be_visible()
    assert serious(page) == []
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.keyboard.press("g")
    page.keyboard.press("t")
    page.wait_for_url("**/traces?window=5m")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


def test_a_page_says_that_it_is_old(
    tab: Watched, mesh: InventedMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tab.go("/graph")
    pulse = page.locator("#pulse")
    expect(pulse).to_have_text("live")

    async def away(*_asked: object, **_more: object) -> None:
        raise WeftError("the control plane does not answer")

    monkeypatch.setattr(InventedClient, "raw", away)
    expect(pulse).to_have_text("not live", timeout=SECONDS)
    expect(page.get_by_role("alert")).to_contain_text(
        "the control plane does not answer. What is shown is of"
    )
    expect(page.locator(ORDERS)).to_be_visible()
    monkeypatch.undo()
    expect(pulse).to_have_text("live", timeout=SECONDS)
    expect(page.get_by_role("alert")).to_be_hidden()


def test_it_is_live_and_stands_still(tab: Watched, mesh: InventedMesh) -> None:
    page = tab.go("/graph")
    orders = page.locator(ORDERS)
    expect(orders).to_have_class(re.compile("bad"))
    orders.evaluate("(node) => { node.mark = 'the same'; }")
    before = boxes(page)
    better = shop()
    for one in better.workloads:
        if one["app"] == "orders":
            one["inbound"].update(rps=8.0, requests=480, errors=0, success=1.0)
    tell(mesh, better)
    expect(orders).to_have_accessible_name(re.compile("^orders.* 8.0 requests per second"), timeout=SECONDS)
    expect(orders).to_have_class(re.compile("good"))
    assert boxes(page) == before
    (late,) = better.add("shop", "late", rps=1)
    better.call(who("shop", "orders-v1", app="orders"), late, rps=1)
    expect(page.locator("[data-node='service:shop/late']")).to_be_visible(timeout=SECONDS)
    assert orders.evaluate("(node) => node.mark") == "the same"
    better.edges.clear()
    expect(page.locator(".graph-link.idle")).to_have_count(10, timeout=SECONDS)
    expect(page.locator(".graph-node")).to_have_count(10)


def test_versions_and_namespaces(tab: Watched) -> None:
    page = tab.go("/graph")
    page.get_by_label("Versions").check()
    expect(page.locator("[data-node^='workload:shop/reviews']")).to_have_count(3)
    page.get_by_label("Versions").uncheck()
    page.get_by_role("button", name="Namespace shop: show as one").press("Enter")
    expect(page.locator("[data-node='namespace:shop']")).to_be_focused()
    expect(page.locator(".graph-node")).to_have_count(5)
    assert "collapsed=shop" in page.url
    folded = page.locator("[data-node='namespace:shop']")
    folded.press("Enter")
    page.keyboard.press("Escape")
    folded.click()
    expect(page.get_by_role("complementary", name="Details")).to_contain_text("7")
    folded.click()
    expect(page.locator(ORDERS)).to_be_visible()


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_a_hundred_services(tab: Watched, mesh: InventedMesh, colours: Literal["light", "dark"]) -> None:
    tell(mesh, city(100))
    tab.page.emulate_media(color_scheme=colours)
    page = tab.go("/graph")
    expect(page.locator(".graph-node")).to_have_count(101)
    found = boxes(page)
    for place, a in enumerate(found):
        for b in found[place + 1 :]:
            beside = a["right"] <= b["left"] or b["right"] <= a["left"]
            assert beside or a["bottom"] <= b["top"] or b["bottom"] <= a["top"]
    letters = page.locator(".graph-node .large").first.evaluate("(text) => 22 * text.getScreenCTM().a")
    assert letters > 7.5
    tab.shoot(f"graph-100-{colours}")
    assert serious(page) == []


@pytest.mark.parametrize(
    "path", ["/graph", "/graph?node=service%3Ashop%2Forders", "/traces", f"/traces/{TRACE}"]
)
def test_colours_and_a_phone(tab: Watched, path: str) -> None:
    page = tab.go(path)
    name = re.sub(r"\W+", "-", path.partition("%")[0]).strip("-")[:20]
    colours: Literal["light", "dark"]
    for colours in ("light", "dark"):
        page.emulate_media(color_scheme=colours)
        tab.shoot(f"{name}-{colours}")
        assert serious(page) == []
    page.set_viewport_size(PHONE)
    tab.shoot(f"{name}-phone")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert serious(page) == []


def test_motion_only_where_it_is_welcome(tab: Watched) -> None:
    page = tab.go("/graph")
    expect(page.locator(".graph-link.good")).not_to_have_count(0)
    assert page.evaluate("document.getAnimations().length") == 0
    page.emulate_media(reduced_motion="no-preference")
    page.wait_for_function("document.getAnimations().some((one) => one.animationName === 'graph-flow')")


def test_names_are_inert(tab: Watched, mesh: InventedMesh) -> None:
    hostile = InventedMesh()
    (one,) = hostile.add("shop", HOSTILE, rps=1)
    (two,) = hostile.add(HOSTILE, "victim", rps=1, failing=1)
    hostile.call(one, two, rps=2, failing=1)
    hostile.spans = [span(1, 0, ("shop", HOSTILE), 0, 5, path=f"/{HOSTILE}", user_agent=HOSTILE)]
    hostile.spans[0]["name"] = HOSTILE
    hostile.traces = [{**shop().traces[0], "services": [f"shop/{HOSTILE}"]}]
    hostile.traces[0]["root"] = {**hostile.traces[0]["root"], "title": HOSTILE}
    hostile.records = [{**shop().records[0], "path": HOSTILE, "policy": HOSTILE}]
    tell(mesh, hostile)
    page = tab.go("/graph")
    drawn = page.locator("[data-node^='service:shop']")
    expect(drawn).to_have_accessible_name(re.compile("<img src=x"))
    drawn.hover()
    expect(page.locator("#graph-note")).to_contain_text("<img src=x")
    drawn.click()
    expect(page.get_by_role("complementary", name="Details")).to_contain_text("<script>")
    assert page.locator("img, script:not([src])").count() == 0
    for path in (
        "/traces",
        f"/traces/{TRACE}",
        "/traces?service=%22%3E%3Cimg%20src%3Dx%3E&id=%3Cb%3E&min=%3Cb%3E",
    ):
        page = tab.go(path)
        expect(page.locator("main")).to_contain_text("<")
        assert page.locator("img, script:not([src])").count() == 0


def test_from_a_search_to_the_cause(tab: Watched) -> None:
    page = tab.go("/traces?errors=1")
    expect(page.get_by_label("Only failed")).to_be_checked()
    expect(page.locator("#traces tbody tr")).to_have_count(12)
    page.get_by_role("link", name="GET /api/orders/7").first.click()
    page.wait_for_url(f"**/traces/{TRACE}")
    spans = page.locator("details.span")
    expect(spans).to_have_count(7)
    depths = spans.evaluate_all("(all) => all.map((one) => one.querySelectorAll('summary i').length)")
    assert depths == [0, 1, 2, 2, 3, 4, 5]
    spans.first.locator("summary").focus()
    for _ in range(5):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    failed = spans.nth(5)
    expect(failed).to_contain_text("tried 3 times")
    expect(failed).to_contain_text("UF: ")
    expect(failed).to_contain_text("What helps")
    expect(failed.get_by_role("link", name="Explain this request")).to_have_attribute(
        "href", re.compile(r"^/explain\?role=workload&from=shop%2Forders-v1-0&method=GET&url=http")
    )
    assert "4111" not in page.content(), "a query may hold secrets"
    expect(page.locator("#records")).to_contain_text("ns[shop]-policy[orders]-rule[0]")
    page.get_by_role("button", name="Open all").click()
    assert spans.evaluate_all("(all) => all.every((one) => one.open)")


def test_a_trace_by_its_id(tab: Watched) -> None:
    page = tab.go(f"/traces?id={TRACE}")
    page.get_by_role("link", name=TRACE).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("GET /api/orders/7")
    page = tab.go("/traces?id=nothing")
    expect(page.locator("main")).to_contain_text("32 hex digits")


def test_charts_are_read_off(tab: Watched) -> None:
    page = tab.go("/")
    chart = page.locator("figure[data-chart=lines]").first
    plot = chart.locator(".chart-plot")
    expect(plot.locator(".line")).to_have_count(2)
    expect(plot.locator(".mark")).to_have_count(1)
    plot.hover(position={"x": 300, "y": 60})
    read = chart.locator(".chart-read")
    expect(read).to_contain_text("/s")
    # All charts are read at the same time.
    expect(page.locator(".chart-plot[data-at]")).to_have_count(page.locator(".chart-plot").count())
    plot.click(position={"x": 300, "y": 60})
    expect(read.get_by_role("link", name="Traces of this moment")).to_have_attribute(
        "href", re.compile(r"/traces\?from=\d+&to=\d+")
    )
    page.keyboard.press("Escape")
    expect(read).to_have_count(0)
    plot.focus()
    page.keyboard.press("Home")
    expect(read).to_be_visible()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    read.get_by_role("link").click()
    page.wait_for_url("**/traces?from=*")
    expect(page.locator(".moment")).to_be_visible()


def test_a_chart_is_a_table_too(tab: Watched) -> None:
    page = tab.go("/")
    chart = page.locator("figure[data-chart=lines]").first
    chart.get_by_text("As a table").click()
    rows = chart.locator("tbody tr")
    expect(rows).to_have_count(120)
    expect(rows.filter(has_text="alice: update VirtualService shop/reviews")).to_have_count(1)


def test_a_heat_map_leads_to_the_traces_of_a_cell(tab: Watched) -> None:
    page = tab.go("/")
    page.evaluate("""
        const figure = document.querySelector('figure[data-chart]').cloneNode(false);
        figure.dataset.chart = 'heat';
        figure.dataset.src = '/data/series?metric=latency&of=service:shop/orders';
        delete figure.dataset.more;
        figure.append(document.createElement('figcaption'));
        const place = document.createElement('div');
        place.append(figure);
        document.querySelector('header.side').after(place);
        document.querySelector('main').remove();
        document.dispatchEvent(new CustomEvent('weft:page'));
    """)
    chart = page.locator("figure[data-chart=heat]").last
    chart.scroll_into_view_if_needed()
    expect(chart.locator(".cell")).not_to_have_count(0)
    chart.locator(".chart-plot").click(position={"x": 200, "y": 90})
    link = chart.get_by_role("link", name="Traces of this moment")
    expect(link).to_have_attribute("href", re.compile(r"min=\d+ms&max=\d+ms&service=shop%2Forders"))
