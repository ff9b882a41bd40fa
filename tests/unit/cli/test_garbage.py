"""Whatever is in files and arguments: findings or a refusal, no traceback, nothing weft itself fails on."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from weft import cli
from weft.cli import weft
from weft.errors import WeftError

GARBAGE = {
    "not utf-8": b"a: 'b\xed\xa0\x80'\n",
    "half a character": b"\xff\xfe\x00",
    "nul": b"\x00",
    "nothing": b"",
    "a list": b"- a\n- b\n",
    "itself": b"a: &a {b: *a}\n",
    "deep": b"[" * 3000 + b"]" * 3000,
    "lists in lists": b"{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: List, items: [0, {}]}]}",
    "wrong types": b"kind: [1]\napiVersion: {}\nmetadata: 3\n",
    "metadata of a list": b"apiVersion: v1\nkind: Service\nmetadata: [null]\nspec: []\n",
    "keys": b"? [a, b]\n: c\n1: 2\nnull: 3\n",
    "tags": b"!!python/object:os.system x\n",
    "numbers": b"x: 1e999\ny: .nan\nz: 2026-99-99\n",
    "no yaml": b"{" * 50,
}
COMMANDS = (
    ("validate", "FILE"),
    ("analyze", "FILE"),
    ("status", "FILE"),
    ("status", "FILE", "-o", "json"),
    ("xds", "FILE", "--proxy", "sidecar~10.0.0.1~web-0.default"),
    ("describe", "service/web", "FILE"),
    ("explain", "FILE", "http://web/", "--from", "workload:default/web-0"),
)
ARGUMENTS = (
    ("explain", "FILE", "x" * 70_000, "--from", "workload:default/web-0"),
    ("explain", "FILE", "http://[::1", "--from", "workload:default/web-0"),
    ("explain", "FILE", "http://a:99999/", "--from", "workload:default/web-0"),
    ("explain", "FILE", "http://a/", "--from", "x:y/z"),
    ("explain", "FILE", "http://a/", "--from", "gateway:/"),
    ("explain", "FILE", "http://a/", "--from", "workload:default/web-0", "--jwt", "[" * 100_000),
    ("validate", "x" * 70_000),
    ("validate", "\0"),
    ("describe", "x" * 70_000, "FILE"),
    ("xds", "FILE", "--proxy", "router~~~"),
    ("xds", "FILE", "--proxy", "sidecar~10.0.0.1~a.b", "--labels", "="),
)


def run(argv: tuple[str, ...], file: Path, capsys: pytest.CaptureFixture[str]) -> int:
    """The exit code, as ``main`` gives it; an exception is weft's own failure."""
    try:
        code = weft.main([str(file) if part == "FILE" else part for part in argv], standalone_mode=False)
    except click.exceptions.Exit as done:
        code = done.exit_code
    except click.ClickException:
        code = 2
    except WeftError as error:
        cli.report(error)
        code = error.exit_code
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    assert "weft fails" not in said.out + said.err
    return code or 0


@pytest.mark.parametrize("name", GARBAGE)
def test_files(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "it.yaml"
    file.write_bytes(GARBAGE[name])
    for argv in COMMANDS:
        assert run(argv, file, capsys) in {0, 1, 2}, argv


@pytest.mark.parametrize("argv", ARGUMENTS, ids=lambda argv: " ".join(argv)[:40].replace("\0", "NUL"))
def test_arguments(argv: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "it.yaml"
    file.write_text("apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n")
    assert run(argv, file, capsys) in {0, 1, 2}


def test_requests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, asked = tmp_path / "it.yaml", tmp_path / "asked.json"
    file.write_text("apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n")
    lines = ["{}", "[]", "null", '{"from":"workload:a/b","url":"http://a","headers":[1]}', "[" * 100_000]
    lines += ['{"id":[],"from":{},"url":{}}', '{"from":"workload:default/web-0","port":-1,"jwt":3,"sni":[]}']
    asked.write_text("\n".join(lines))
    assert run(("explain", "FILE", "--requests", str(asked)), file, capsys) in {0, 1}
