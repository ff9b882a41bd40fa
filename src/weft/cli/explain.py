"""``weft explain``: where a request goes, and which line of which file decided it."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import click

from weft.cli.server import files_option
from weft.errors import Severity, UsageError

if TYPE_CHECKING:
    from weft.analysis.explain.mesh import Mesh
    from weft.errors import Problem

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"})
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_ROLES: Final = ("gateway", "workload", "inbound")
# What may stand before a name in place of a role, as kubectl and istioctl write it: pod/web-0.
_WORDS: Final = {
    **dict.fromkeys(("gateway", "gw", "gtw"), "gateway"),
    **dict.fromkeys(("workload", "wl", "workloadentry", "we", "pod", "po"), "workload"),
    **dict.fromkeys(
        ("deployment", "deploy", "statefulset", "sts", "daemonset", "ds", "workloadgroup", "wg"), "workload"
    ),
}
_SCHEMES: Final = {
    "http": ("http", "none"),
    "https": ("http", "tls"),
    "grpc": ("grpc", "none"),
    "grpcs": ("grpc", "tls"),
    "tcp": ("tcp", "none"),
    "tls": ("tcp", "tls"),
    "udp": ("udp", "none"),
}


@click.command()
@click.argument("arguments", nargs=-1, metavar="PATH… [[METHOD] URL] | REQUEST-ID")
@files_option
@click.option("--requests", metavar="FILE", help="One request a line, as JSON; - for standard input.")
@click.option(
    "--from",
    "sender",
    metavar="ROLE:NS/NAME",
    help="Who asks: gateway:…, workload:… (or NAME.NS), inbound:….",
)
@click.option("-X", "--request", "method", default="", metavar="METHOD", help="As METHOD before the URL.")
@click.option("-H", "--header", "headers", multiple=True, metavar="NAME: VALUE", help="A header.")
@click.option("--address", default="", help="What is dialled, an IP or a name; default: the URL's host.")
@click.option("--port", type=click.IntRange(1, 65535), help="The port dialled; default: the URL's.")
@click.option("--protocol", type=click.Choice(["http", "http2", "grpc", "tcp", "udp"]), help="Inside TLS.")
@click.option("--tls", type=click.Choice(["none", "tls", "mtls"]), help="mtls: with a certificate.")
@click.option("--sni", default="", help="The server's name in the TLS handshake.")
@click.option("--alpn", multiple=True, help="A protocol offered in the TLS handshake.")
@click.option("--source-principal", default="", help="The client's SPIFFE identity.")
@click.option("--source-namespace", default="", help="The client's namespace.")
@click.option("--source-ip", default="", help="The client's address.")
@click.option("--jwt", default="", metavar="JSON", help="A token: iss, sub, aud, claims.")
@click.option("--labels", default="", metavar="K=V,…", help="Labels of a proxy that no document describes.")
@click.option("--service-account", default="", help="Its service account.")
@click.option("--live", is_flag=True, help="Ask the proxy that runs, instead of files.")
@click.option("--server", metavar="URL|SOCKET", help="--live: the control plane; default: this machine's.")
@click.option(
    "-n", "--namespace", default="default", show_default=True, help="Of names and documents without one."
)
@click.option("--controller-name", default="", help="Serve GatewayClasses of this controller as well.")
@click.option("-o", "--output", type=click.Choice(["text", "json", "yaml"]), help="How to print.")
def explain(
    arguments: tuple[str, ...],
    files: tuple[str, ...],
    requests: str | None,
    sender: str | None,
    method: str,
    live: bool,
    server: str | None,
    namespace: str,
    controller_name: str,
    output: str | None,
    **said: Any,
) -> None:
    """Say where a request would go, and which line of which file decided it.

    The configuration that the proxy would get is generated from PATHS (files, directories or -) and
    walked as Envoy walks it: listener, filter chain, virtual host, route, filters, cluster. Ask with
    --from and a URL, or ask many with --requests; --live asks the proxies that run.

    With the REQUEST-ID of a request that was made, say which proxies of this host it passed.
    """
    paths = (*files, *arguments)
    questions: Iterable[object]
    on_terminal = output or ("text" if sys.stdout.isatty() else "json")
    if _is_request_id(arguments) and not (requests or sender or live or files):
        from weft.cli.explain_live import print_hops

        print_hops(arguments[0], on_terminal)
        return
    if requests is not None:
        if sender is not None:
            raise UsageError("--from goes with one URL, --requests with many", hint="use one of them")
        if requests == "-" and "-" in paths:
            raise UsageError("standard input cannot be both", hint="put the requests or the files in a file")
        questions = _lines(requests)
        shown = output or "json"
    else:
        before, said_method, url = _divided(arguments)
        paths = (*files, *before)
        questions = [
            _question(proxy_asked(sender or "", namespace), said_method or method.upper(), url, said)
        ]
        shown = on_terminal
    ask = _asking(paths, namespace, controller_name, server, live=live)
    _print(map(ask, questions), shown, many=requests is not None)


def _asking(
    paths: tuple[str, ...], namespace: str, controller: str, server: str | None, *, live: bool
) -> Callable[[object], dict[str, Any]]:
    """What answers questions: the mesh of some files, or the one that runs."""
    if live:
        from weft.cli.explain_live import Asking

        if paths:
            raise UsageError(f"--live asks what runs, not {paths[0]}", hint="leave out the one or the other")
        return Asking(server).explain
    if not paths:
        hint = "name the files or the folder of the mesh first, or ask what runs with --live"
        raise UsageError("there are no files", hint=hint)
    mesh = _mesh(paths, namespace, controller)
    told: set[Problem] = set()

    def ask(question: object) -> dict[str, Any]:
        answer = mesh.explain(question)
        for problem in mesh.problems:
            if problem not in told:
                told.add(problem)
                click.echo(f"{problem.severity.lower()}: {problem}", err=True)
        return answer

    return ask


def _is_request_id(arguments: tuple[str, ...]) -> bool:
    """Envoy's request ids are UUIDs; a file of that name would be meant instead."""
    return len(arguments) == 1 and bool(_UUID.fullmatch(arguments[0])) and not Path(arguments[0]).exists()


def _divided(arguments: tuple[str, ...]) -> tuple[tuple[str, ...], str, str]:
    """Paths, method and URL. A URL has a scheme, or is no file that exists."""
    if not arguments:
        raise UsageError("there is nothing to explain", hint="weft explain FILE… --from workload:NS/NAME URL")
    *paths, url = arguments
    if "://" not in url and (url == "-" or os.path.exists(url)):  # noqa: PTH110  (Path's raises if too long)
        raise UsageError("there is no URL", hint="write it after the files: weft explain FILE --from … URL")
    method = ""
    if paths and paths[-1] in _METHODS and not Path(paths[-1]).exists():
        method = paths.pop()
    return tuple(paths), method, url


def proxy_asked(text: str, namespace: str) -> tuple[str, str]:
    """Role and ``namespace/name`` of ``--from``.

    Without a role a workload is meant: NAME.NAMESPACE as in other commands, NAMESPACE/NAME, or pod/NAME.
    """
    role, colon, name = text.partition(":")
    if not colon:
        word, slash, rest = text.partition("/")
        known = _WORDS.get(word.lower()) if slash else None
        role, name = (known, rest) if known else ("workload", text)
    if role not in _ROLES or not name:
        raise UsageError(
            f"--from {text}: this is no proxy" if text else "say which proxy is asked",
            hint="write --from gateway:NS/NAME, workload:NS/NAME or inbound:NS/NAME",
        )
    if "/" in name:
        return role, name
    short, dot, space = name.rpartition(".")
    return role, f"{space}/{short}" if dot else f"{namespace}/{name}"


def _question(sender: tuple[str, str], method: str, url: str, said: dict[str, Any]) -> dict[str, Any]:
    """The request of the command line, in the form that ``--requests`` has."""
    role, name = sender
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{url!r} is no URL: {error}", hint="write http://HOST/PATH") from error
    protocol, tls = _SCHEMES.get(parts.scheme.lower(), ("", ""))
    if not protocol or not parts.hostname:
        raise UsageError(f"{url!r} is no URL", hint=f"write one of {', '.join(_SCHEMES)}://HOST/PATH")
    headers: dict[str, list[str]] = {}
    for header in said["headers"]:
        key, colon, value = header.partition(":")
        if not colon or not key.strip():
            raise UsageError(f"{header!r} is no header", hint="write -H 'NAME: VALUE'")
        headers.setdefault(key.strip().lower(), []).append(value.strip())
    who: dict[str, Any] = {role: name}
    if said["labels"]:
        who["labels"] = dict(_labels(said["labels"]))
    if said["service_account"]:
        who["serviceAccount"] = said["service_account"]
    usual = 443 if tls == "tls" else 80
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return {
        "id": None,
        "from": who,
        "address": said["address"] or ("" if role == "gateway" else parts.hostname),
        "port": said["port"] or port or usual,
        "protocol": said["protocol"] or protocol,
        "tls": said["tls"] or tls,
        "sni": said["sni"],
        "alpn": list(said["alpn"]) or None,
        "source": {
            "principal": said["source_principal"],
            "namespace": said["source_namespace"],
            "ip": said["source_ip"],
        },
        "http": {
            "method": method or None,
            "host": parts.netloc.rpartition("@")[2],
            "path": path,
            "headers": headers,
        },
        "jwt": _token(said["jwt"]),
    }


def _labels(text: str) -> Iterator[tuple[str, str]]:
    for part in filter(None, text.split(",")):
        key, found, value = part.partition("=")
        if not found or not key:
            raise UsageError(f"{part!r} is not a label", hint="write --labels app=reviews,version=v1")
        yield key.strip(), value.strip()


def _token(text: str) -> Any:
    if not text:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--jwt is no JSON: {error}", hint="""write --jwt '{"iss": "…"}'""") from error


def _lines(path: str) -> Iterator[object]:
    """Requests, one a line; a line that is no JSON is passed on as text, so that it gets its answer."""
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}", hint="check the path") from error
    for line in text.splitlines():
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                yield line


def _mesh(paths: Iterable[str], namespace: str, controller: str) -> Mesh:
    """The mesh of some files. What is wrong in them goes to standard error, and is left out."""
    from weft.analysis.explain.mesh import Mesh
    from weft.model.files import read_paths
    from weft.model.parse import parse, unwrap
    from weft.model.untranslated import UNTRANSLATED, findings

    documents, problems = read_paths(paths)
    found = list(problems)
    parts, read = [], []
    for document in documents:
        inside, wrong = unwrap(document)
        found += wrong
        for part in inside:
            parts.append(part)
            resource, wrong = parse(part, namespace)
            found += wrong
            if resource is not None:
                found += findings(resource, part.where)
                read.append((part, resource))
    for problem in found:
        if problem.severity is Severity.ERROR:
            click.echo(f"left out: {problem}", err=True)
        elif problem.code == UNTRANSLATED:
            click.echo(f"warning: {problem}", err=True)
    return Mesh(parts, read, namespace=namespace, controller=controller)


def _print(answers: Iterable[dict[str, Any]], output: str, *, many: bool) -> None:
    write: Callable[[dict[str, Any]], None]
    if output == "json":
        separators = (",", ":") if many else None
        indent = None if many else 2

        def write(answer: dict[str, Any]) -> None:
            sys.stdout.write(json.dumps(answer, separators=separators, indent=indent) + "\n")
    elif output == "yaml":
        import yaml

        def write(answer: dict[str, Any]) -> None:
            yaml.safe_dump(answer, sys.stdout, sort_keys=False, explicit_start=many, allow_unicode=True)
    else:
        from weft.cli.explain_text import lines

        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ

        def write(answer: dict[str, Any]) -> None:
            for line in lines(answer, colour):
                click.echo(line)

    for answer in answers:
        write(answer)
