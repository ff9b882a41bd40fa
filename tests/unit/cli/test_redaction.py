"""What commands print of a mesh with Secrets in it never has a private key in it."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from weft.cli import weft

CASE = Path(__file__).parents[2] / "golden" / "gateway-api-tls" / "in.yaml"
PROXY = ("--proxy", "router~10.0.0.2~shop.edge", "--labels", "gateway.networking.k8s.io/gateway-name=shop")


def keys() -> list[str]:
    """Pieces of every private key of the case, as written and as it is."""
    found = []
    for document in yaml.safe_load_all(CASE.read_text()):
        if document and document["kind"] == "Secret" and "tls.key" in document["data"]:
            text = document["data"]["tls.key"]
            inner = base64.b64decode(text).decode().splitlines()[1:-1]
            found += [text[60:120], *inner, base64.b64encode(inner[0].encode()).decode()[:40]]
    assert found
    return found


@pytest.mark.parametrize(
    "words",
    [
        ("xds", "--type", "all", *PROXY),
        ("xds", "--type", "secrets", *PROXY),
        ("xds", "--static", *PROXY),
        ("analyze", "-A", "-o", "json"),
        ("status", "-o", "yaml"),
        ("validate", "-o", "json"),
        ("describe", "reviews", str(CASE), "-o", "json"),
        ("explain", "--from", "gateway:edge/shop", "-o", "json", "https://example.com/"),
    ],
    ids=lambda words: f"{words[0]} {words[1]} {words[2]}".replace(str(CASE), ""),
)
def test_no_key_is_printed(words: tuple[str, ...]) -> None:
    command, *rest = words
    files = {"describe": [], "explain": ["-f", str(CASE)]}.get(command, [str(CASE)])
    result = CliRunner().invoke(weft, [command, *files, *rest])
    assert result.exit_code in {0, 1}, (result.output, result.exception)
    assert len(result.output) > 20
    assert not [piece for piece in keys() if piece in result.output]
