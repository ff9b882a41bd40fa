"""Every page of what strangers may have written, and the door in front of them."""

from __future__ import annotations

import asyncio
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote, unquote

import pytest
from tests.support.strangers import HOSTILE, readers

from weft.dashboard.app import create_dashboard
from weft.dashboard.door import Door
from weft.dashboard.readers import ReadError

NAMES = quote(HOSTILE.replace("/", ""), safe="")

PAGES = (
    "/", "/services", f"/services/{NAMES}/{NAMES}", "/workloads", f"/workloads/{NAMES}/{NAMES}",
    "/configuration", "/configuration/things.a", f"/configuration/things.a/{NAMES}/{NAMES}", "/proxies",
    f"/proxies/{NAMES}/{NAMES}?section=cluster", "/explain?from=a/b&url=http://a", "/security", "/graph",
)  # fmt: skip


def dashboard(fails: ReadError | None = None) -> Door:
    return create_dashboard(readers(fails), stop=asyncio.Event())


async def ask(
    door: Door, target: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], str]:
    """Status, headers and body; names of headers with ``_`` for ``-``."""
    path, _, query = target.partition("?")
    named = {"host": "127.0.0.1:15080", **{name.replace("_", "-"): text for name, text in headers.items()}}
    scope = {
        "type": "http", "http_version": "1.1", "method": method, "scheme": "http", "root_path": "",
        "path": unquote(path), "raw_path": path.encode(),
        "query_string": query.encode(), "server": ("127.0.0.1", 15080), "client": ("127.0.0.1", 1),
        "headers": [(name.encode(), text.encode()) for name, text in named.items()],
    }  # fmt: skip
    sent: list[Any] = []

    told_of = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Any:
        for message in told_of:
            return message
        return await asyncio.Event().wait()  # the client stays

    async def send(message: Any) -> None:
        sent.append(message)

    await door(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    told = {name.decode(): text.decode() for name, text in sent[0]["headers"]}
    return sent[0]["status"], told, body.decode()


async def come_in(door: Door) -> str:
    status, headers, _ = await ask(door, f"/enter?token={door.token}")
    assert status == 200
    return headers["set-cookie"].partition(";")[0]


class Elements(HTMLParser):
    """What a browser would make of it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.mark.parametrize("target", PAGES)
async def test_what_strangers_wrote_stays_text(target: str) -> None:
    door = dashboard()
    status, _, text = await ask(door, target, cookie=await come_in(door))
    assert status == 200
    page = Elements(text)
    assert HOSTILE in page.words
    for tag, attributes in page.found:
        assert tag not in {"img", "iframe", "object", "style", "base"}, tag
        assert tag != "form" or attributes.get("method") in {"get", "dialog"}
        assert tag != "script" or str(attributes.get("src")).startswith("/static/")
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("href", "src", "action"):
            if name in attributes and tag != "use":
                assert str(attributes[name]).startswith(("/", "#")), attributes


@pytest.mark.parametrize("status", [0, 403, 500])
@pytest.mark.parametrize("target", PAGES[:6] + PAGES[8:])
async def test_a_page_without_answers_says_why(target: str, status: int) -> None:
    door = dashboard(ReadError(status, "no answer for you"))
    got, _, text = await ask(door, target, cookie=await come_in(door))
    assert got == 200
    assert "no answer for you" in text


async def test_what_is_not_there() -> None:
    door = dashboard()
    cookie = await come_in(door)
    for target in ("/nothing", "/configuration/nothing", "/data/ca", "/static/../door.py", "/static/nothing"):
        assert (await ask(door, target, cookie=cookie))[0] == 404


async def test_the_link_works_once() -> None:
    door = dashboard()
    link = f"/enter?token={door.token}"
    assert (await ask(door, "/enter"))[0] == 401
    assert (await ask(door, "/enter?token=x"))[0] == 401
    status, headers, _ = await ask(door, link)
    assert status == 200
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(headers["set-cookie"].split("; "))
    assert (await ask(door, link))[0] == 401
    assert (await ask(door, "/enter?token="))[0] == 401


async def test_who_gets_in() -> None:
    door = dashboard()
    assert (await ask(door, "/"))[0] == 401
    assert (await ask(door, "/", cookie="weft="))[0] == 401
    cookie = await come_in(door)
    assert (await ask(door, "/", cookie=cookie))[0] == 200
    assert (await ask(door, "/", cookie=f"other=1; {cookie}", host="localhost:9999"))[0] == 200
    assert (await ask(door, "/", cookie=cookie, host="[::1]:15080"))[0] == 200
    for host in ("evil.example", "evil.example:15080", "127.0.0.1.evil.example", ""):
        assert (await ask(door, "/", cookie=cookie, host=host))[0] == 421
    for site in ("cross-site", "same-site"):
        assert (await ask(door, "/", cookie=cookie, sec_fetch_site=site))[0] == 403
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        assert (await ask(door, "/", method, cookie=cookie))[0] == 405


@pytest.mark.parametrize("target", ["/", "/static/style.css", "/nothing", "/enter"])
async def test_every_answer_is_closed_to_other_sites(target: str) -> None:
    door = dashboard()
    _, headers, _ = await ask(door, target, cookie=await come_in(door))
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "access-control-allow-origin" not in headers


async def test_a_stream_has_the_page_then_ticks_and_ends_with_the_dashboard() -> None:
    stop = asyncio.Event()
    door = create_dashboard(readers(), stop=stop)
    cookie = await come_in(door)
    streaming = asyncio.create_task(ask(door, "/services", cookie=cookie, accept="text/event-stream"))
    await asyncio.sleep(0)
    stop.set()
    async with asyncio.timeout(10):
        status, headers, text = await streaming
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert "<!doctype" not in text
    assert "<img" not in text.replace("&lt;img", "")


async def test_choices_go_along() -> None:
    door = dashboard()
    _, _, text = await ask(door, "/services?namespace=n&window=5m&q=x", cookie=await come_in(door))
    links = [str(attributes["href"]) for tag, attributes in Elements(text).found if tag == "a"]
    assert "/graph?namespace=n&window=5m" in links
    assert [one for one in links if one.startswith("/services/") and one.endswith("namespace=n&window=5m")]
    _, _, text = await ask(door, "/?window=nonsense", cookie=await come_in(dashboard()))
    assert "window=nonsense" not in text
