"""The shop without a mesh: its services as they are, on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.ports import free_ports

SERVICES = Path(__file__).parents[2] / "examples" / "shop" / "services"
NAMES = (
    "front", "users", "catalog", "recommendations", "recommendations-v2", "orders", "inventory", "payments",
    "notifications",
)  # fmt: skip


def command(name: str) -> list[str]:
    match name:
        case "recommendations-v2":
            return ["node", "recommendations.js"]
        case "notifications":
            return ["node", "notifications.js"]
        case _:
            return [sys.executable, f"{name}.py"]


def ask(
    url: str, body: object = None, headers: Mapping[str, str] | None = None
) -> tuple[int, Any, Mapping[str, str]]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, dict(headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            text = answer.read().decode()
            status, found = answer.status, answer.headers
    except urllib.error.HTTPError as error:
        with error:
            text, status, found = error.read().decode(), error.code, error.headers
    kind = found.get("content-type", "")
    return status, json.loads(text) if "json" in kind else text, {k.lower(): v for k, v in found.items()}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Where each service listens."""
    data = tmp_path_factory.mktemp("shop")
    ports = dict(zip(NAMES, free_ports(len(NAMES)), strict=True))
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    environment = {**os.environ, "SHOP_URLS": json.dumps(urls), "SHOP_DATA": str(data), "HOST": "127.0.0.1"}
    environment.pop("HOSTNAME", None)
    with ExitStack() as stack:
        for name, port in ports.items():
            process = stack.enter_context(
                subprocess.Popen(command(name), cwd=SERVICES, env={**environment, "PORT": str(port)})
            )
            stack.callback(process.terminate)
        for url in urls.values():
            wait_for(url + "/healthz")
        yield urls


def wait_for(url: str, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            if ask(url)[0] == 200:
                return
        except OSError:
            if time.monotonic() > end:
                raise


def test_the_page_shows_products_people_and_who_served_it(shop: dict[str, str]) -> None:
    status, page, headers = ask(shop["front"] + "/", headers={"cookie": "user=mei"})
    assert status == 200
    assert "text/html" in headers["content-type"]
    assert 'value="mei" selected' in page
    assert "recommendations v1" in page
    assert page.count('<article class="card">') >= 32
    assert "Served by catalog-v1, recommendations-v1, users-v1" in page


def test_an_order_goes_through_every_service(shop: dict[str, str]) -> None:
    status, order, _ = ask(shop["orders"] + "/orders", {"user": "ada", "items": {"moka-3": 2, "honey": 1}})
    assert status == 201
    assert order["cents"] == 2 * 2890 + 1120
    assert [step["service"] for step in order["trail"]] == [
        "users", "catalog", "catalog", "inventory", "payments", "notifications",
    ]  # fmt: skip
    assert ask(shop["inventory"] + "/stock/moka-3")[1]["quantity"] == 498
    assert ask(shop["payments"] + "/charges")[1]["cents"] == order["cents"]
    assert order["id"] in ask(shop["notifications"] + "/messages")[1][0]["text"]
    assert ask(shop["orders"] + "/orders?user=ada")[1][0]["id"] == order["id"]


def test_a_charge_is_made_once(shop: dict[str, str]) -> None:
    before = ask(shop["payments"] + "/charges")[1]["count"]
    for _ in range(3):
        assert ask(shop["payments"] + "/charges", {"id": "same", "user": "ada", "cents": 5})[0] == 200
    assert ask(shop["payments"] + "/charges")[1]["count"] == before + 1


def test_version_two_of_the_recommendations_is_another_program(shop: dict[str, str]) -> None:
    _, first, _ = ask(shop["recommendations"] + "/recommendations/ada")
    _, second, _ = ask(shop["recommendations-v2"] + "/recommendations/ada")
    assert (first["version"], second["version"]) == ("v1", "v2")
    assert len(first["products"]) == len(second["products"]) == 4
    known = {product["id"] for product in ask(shop["catalog"] + "/products")[1]}
    assert known.issuperset(first["products"] + second["products"])


@pytest.mark.parametrize(
    ("service", "path", "body", "status"),
    [
        ("orders", "/orders", {"user": "nobody", "items": {"honey": 1}}, 404),
        ("orders", "/orders", {"user": "ada", "items": {}}, 400),
        ("orders", "/orders", {"user": "ada", "items": {"honey": "many"}}, 400),
        ("notifications", "/messages", {"text": "to whom?"}, 400),
        ("catalog", "/nothing", None, 404),
        ("payments", "/charges", {"id": "x", "user": "ada", "cents": -1}, 400),
    ],
)
def test_wrong_requests_are_refused(
    shop: dict[str, str], service: str, path: str, body: object, status: int
) -> None:
    answered, error, _ = ask(shop[service] + path, body)
    assert answered == status
    assert error["error"]


def test_quotes_in_text_stay_text(shop: dict[str, str]) -> None:
    text = 'it\'s "quoted"; DROP TABLE messages; --'
    assert ask(shop["notifications"] + "/messages", {"to": "o'neill@example.com", "text": text})[0] == 200
    newest = ask(shop["notifications"] + "/messages")[1][0]
    assert (newest["recipient"], newest["text"]) == ("o'neill@example.com", text)


def test_both_front_doors_lead_to_the_same_services() -> None:
    istio, standard = (
        list(yaml.safe_load_all((SERVICES.parent / name).read_text()))[-1]["spec"]
        for name in ("gateway.yaml", "gateway-api.yaml")
    )
    by_istio = {
        (rule["match"][0]["uri"]["prefix"], rule["rewrite"]["uri"], rule["route"][0]["destination"]["host"])
        for rule in istio["http"][:-1]
    }
    by_standard = {
        (
            rule["matches"][0]["path"]["value"],
            rule["filters"][0]["urlRewrite"]["path"]["replacePrefixMatch"],
            rule["backendRefs"][0]["name"],
        )
        for rule in standard["rules"][:-1]
    }
    assert by_istio == by_standard
    assert len(by_istio) == 4
