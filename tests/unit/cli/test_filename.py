"""Files by ``-f``, as kubectl and istioctl take them."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from weft.errors import UsageError

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
"""


def run(command: str, *arguments: str) -> Result:
    return CliRunner().invoke(getattr(import_module(f"weft.cli.{command}"), command), arguments)


ASKED = ("--from", "workload:default/web")


@pytest.mark.parametrize(
    ("command", "rest"),
    [
        ("validate", ("-o", "json")),
        ("analyze", ("-o", "json")),
        ("status", ("-o", "yaml")),
        ("xds", ("--proxy", "sidecar~10.0.0.1~web.default", "--type", "cds")),
        ("explain", (*ASKED, "-o", "json")),
    ],
)
def test_a_file_may_be_named_either_way(tmp_path: Path, command: str, rest: tuple[str, ...]) -> None:
    file = tmp_path / "web.yaml"
    file.write_text(SERVICE)
    url = ("http://web/",) if command == "explain" else ()
    plain = run(command, str(file), *rest, *url)
    named = run(command, "-f", str(file), *rest, *url)
    assert (named.exit_code, named.stdout) == (plain.exit_code, plain.stdout)
    assert plain.stdout
    gone = run(command, *rest, "-f", str(tmp_path / "gone.yaml"), *url)
    assert isinstance(gone.exception, UsageError)


@pytest.mark.parametrize("command", ["validate", "xds"])
def test_some_file_is_needed(command: str) -> None:
    rest = ["--proxy", "sidecar~10.0.0.1~web.default"] if command == "xds" else []
    assert isinstance(run(command, *rest).exception, UsageError)


def test_directories_are_looked_into_with_and_without_being_asked(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "web.yaml").write_text(SERVICE.replace("port: 80", "prot: 80"))
    asked, plain = (run("analyze", *flag, str(tmp_path), "-o", "json").stdout for flag in (("-R",), ()))
    assert asked == plain
    assert str(tmp_path / "inner") in plain
