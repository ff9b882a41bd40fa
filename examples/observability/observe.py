"""Start Prometheus (https://prometheus.io, Debian: ``prometheus``) on a mesh that runs on this machine.

    weft up examples/observability/mesh.yaml &
    python3 examples/observability/observe.py

Its page is then at http://127.0.0.1:9090, for Grafana, Kiali and you. With ``--check`` it asks what their
dashboards ask (queries.yaml), says which queries were answered, and ends: 0 when all were, else 1.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
WEFT = [sys.executable, "-m", "weft"]
STAND_INS = {
    "$range": "1m",
    "$service": "web.demo.svc.cluster.local",
    "$workload": "web-v1",
    "$caller": "shopper",
    "$namespace": "demo",
}
JOB = """\
- job_name: {name}
  authorization: {{type: Bearer, credentials_file: {token}}}
  tls_config: {{ca_file: {ca}, server_name: {server}}}
  http_sd_configs:
  - url: {api}/sd?role={role}
    refresh_interval: 5s
    authorization: {{type: Bearer, credentials_file: {token}}}
    tls_config: {{ca_file: {ca}, server_name: istiod.istio-system.svc}}
"""


def runtime(mesh: str) -> Path:
    """Where a mesh of this user keeps its sockets."""
    if os.geteuid() == 0:
        return Path("/run/weft") / mesh
    base = os.environ.get("XDG_RUNTIME_DIR")
    return (Path(base) / "weft" if base else Path(tempfile.gettempdir()) / f"weft-{os.getuid()}") / mesh


@contextlib.contextmanager
def configured(mesh: str, directory: Path, interval: str) -> Iterator[Path]:
    """Write Prometheus' configuration, with a credential that is revoked in the end; where that is."""
    place = runtime(mesh)
    if not (place / "kubeconfig").exists():
        sys.exit(f"no mesh {mesh!r} runs here: weft up {HERE / 'mesh.yaml'}")
    server = ["--server", str(place / "api.sock")]
    asked = [*WEFT, "user", "create", "prometheus", "--group", "system:monitoring", *server]
    token = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
    cluster = json.loads((place / "kubeconfig").read_text())["clusters"][0]["cluster"]
    (directory / "ca.pem").write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
    secret = directory / "token"
    secret.touch(mode=0o600)
    secret.write_text(token.strip())
    jobs = "".join(
        JOB.format(
            name=f"weft-{role}", role=role, server=server, api=cluster["server"],
            ca=directory / "ca.pem", token=secret,
        )
        for role, server in (
            ("node", "weft-node.istio-system.svc"),
            ("control-plane", "istiod.istio-system.svc"),
        )
    )  # fmt: skip
    file = directory / "prometheus.yml"
    file.write_text(f"global: {{scrape_interval: {interval}}}\nscrape_configs:\n{jobs}")
    try:
        yield file
    finally:  # weftuser.ID.SECRET; the mesh may have ended before
        subprocess.run([*WEFT, "user", "revoke", token.split(".")[1], *server], capture_output=True)


def ask(port: int, query: str) -> list[dict[str, Any]]:
    """What Prometheus answers now; nothing while it does not."""
    url = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]["result"]
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.SERVICE_UNAVAILABLE:  # it starts
            return []
        sys.exit(f"{query}\nis no query: {error.read().decode()}")
    except OSError:
        return []


def queries() -> dict[str, str]:
    """By ``tool: what``, with everything filled in."""
    found = {}
    for tool, asked in yaml.safe_load((HERE / "queries.yaml").read_text()).items():
        for what, query in asked.items():
            for name, value in STAND_INS.items():
                query = query.replace(name, value)
            found[f"{tool}: {what}"] = query
    return found


def answered(result: list[dict[str, Any]]) -> bool:
    """Whether there is a number in it."""
    return any(sample["value"][1] != "NaN" for sample in result)


def check(port: int, seconds: float) -> dict[str, list[dict[str, Any]]]:
    """Ask everything until all of it is answered or the time is over; the answers, by what was asked."""
    wanted, found = queries(), {}
    end = time.monotonic() + seconds
    while len(found) < len(wanted) and time.monotonic() < end:
        for what in wanted.keys() - found.keys():
            if answered(result := ask(port, wanted[what])):
                found[what] = result
        threading.Event().wait(0.5)
    return {what: found.get(what, []) for what in wanted}


def free_port(wanted: int) -> int:
    """This port, or a free one."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Prometheus does
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise AssertionError


def main() -> int:
    """Run Prometheus until Ctrl-C, or for a check."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mesh", default="default")
    parser.add_argument("--port", type=int, default=9090)
    parser.add_argument("--interval", default="5s", help="how often it looks")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--seconds", type=float, default=60, help="how long a check tries")
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")
    options = parser.parse_args()
    program = shutil.which("prometheus")
    if program is None:
        sys.exit("there is no Prometheus: apt-get install prometheus, or see prometheus.io/download")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with (
        tempfile.TemporaryDirectory(prefix="weft-prometheus-") as folder,
        configured(options.mesh, Path(folder), options.interval) as file,
    ):
        port = free_port(options.port)
        argv = [
            program, f"--config.file={file}", f"--storage.tsdb.path={Path(folder) / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
        ]  # fmt: skip
        process = subprocess.Popen(argv)
        try:
            if not options.check:
                print(f"Prometheus is at http://127.0.0.1:{port}. Ctrl-C ends it.", flush=True)
                return process.wait()
            return report(check(port, options.seconds), options.output)
        except KeyboardInterrupt:
            return 0
        finally:
            process.terminate()
            process.wait()


def report(found: dict[str, list[dict[str, Any]]], output: str) -> int:
    """Print what was answered."""
    if output == "json":
        print(json.dumps(found))
    else:
        for what, result in found.items():
            first = result[0]["value"][1] if result else "no answer"
            print(f"{what}: {first}{f' and {len(result) - 1} more' if len(result) > 1 else ''}")
    return 0 if all(found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
