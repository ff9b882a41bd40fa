"""A real browser, Debian's Chromium without a screen, and what it must not have to complain of."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Page,
    Request,
    sync_playwright,
)

ROOT: Final = Path(__file__).parents[2]
SCREENSHOTS: Final = ROOT / "build" / "screenshots"
AXE: Final = ROOT / "build" / "npm" / "node_modules" / "axe-core" / "axe.min.js"
"""scripts/setup --tests puts it there."""

_TRIES: Final = 5
_ELSEWHERE: Final = "ERR_NETWORK_CHANGED"
_RULES: Final = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@contextmanager
def browser() -> Iterator[Browser]:
    """Chromium, ended at the end in any case."""
    path = shutil.which("chromium")
    assert path is not None, "Chromium is not installed: scripts/setup --tests"
    with sync_playwright() as play:
        # As root Chromium has no sandbox of its own.
        running = play.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield running
        finally:
            running.close()


@dataclass
class Watched:
    """A tab and what went wrong in it: messages of the console, exceptions, requests to elsewhere."""

    page: Page
    base: str
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.complaints.append(f"exception: {error}"))
        self.page.on("request", self._asked)
        self.page.on("dialog", self._opened)

    def go(self, path: str) -> Page:
        """Open a page of it; its status must be 200."""
        for _ in range(_TRIES):
            answer = self.page.goto(self.base + path, wait_until="load")
            if not any(_ELSEWHERE in one for one in self.complaints):
                break
            # Another test made or removed an interface of this machine, and Chromium let go of everything.
            self.complaints.clear()
        assert answer is not None
        assert answer.status == 200, f"{path}: {answer.status}"
        return self.page

    def shoot(self, name: str) -> None:
        """Keep a picture of the whole page."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)

    def _opened(self, dialog: Dialog) -> None:
        self.complaints.append(f"a dialog opened: {dialog.message}")
        dialog.dismiss()

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(f"console: {message.text} ({message.location.get('url', '')})")

    def _asked(self, request: Request) -> None:
        if urlsplit(request.url).netloc != urlsplit(self.base).netloc:
            self.complaints.append(f"asks elsewhere: {request.url}")


def enter(context: BrowserContext, link: str) -> Watched:
    """Come in by the link that works once."""
    base = re.sub(r"/enter\?.*", "", link)
    watched = Watched(context.new_page(), base)
    watched.page.goto(link)
    watched.page.wait_for_url(f"{base}/")
    return watched


def serious(page: Page) -> list[str]:
    """What axe finds that is serious or critical: rule and element."""
    if not AXE.exists():
        pytest.fail("axe-core is not installed: scripts/setup --tests")
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE.read_text())
    found: dict[str, Any] = page.evaluate(
        "rules => axe.run(document, {runOnly: rules, resultTypes: ['violations']})",
        _RULES,
    )
    return [
        f"{one['id']}: {node['html'][:160]} ({node.get('failureSummary', '')[:200]})"
        for one in found["violations"]
        if one["impact"] in {"serious", "critical"}
        for node in one["nodes"]
    ]
