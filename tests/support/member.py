"""An application of the mesh that knows of none: serves HTTP, and calls others when it is told to on stdin.

``member.py NAME PORT [LATENCY]``, run by any Python 3. Each line of standard input is a request in JSON,
answered by one line on standard output:

- ``{"get": URL, "host": name?}`` -> ``{"status", "body", "error"}``
- ``{"resolve": NAME}`` -> ``{"addresses": []}``
- ``{"dial": [ADDRESS, PORT]}`` -> ``{"answer": "…"}``: what a plain HTTP request brings, "" if nothing
- ``{"load": URL, "threads": 2}`` -> ``{"running": true}``; new connections and kept ones by turns
- ``{"stop": true}`` -> ``{"sent", "failed": [reasons], "by": {body: count}}``
- ``{"exit": CODE}``

``member.py dial ADDRESS PORT`` prints what a plain HTTP request from where it runs brings, ``member.py tls
ADDRESS PORT HOST CA`` one over TLS, with the serial number of the certificate before it.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_TIMEOUT_S = 10


class Application(ThreadingHTTPServer):
    """Answers every GET with its name."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, name: str, port: int, latency_s: float) -> None:
        self.name, self.latency_s = name, latency_s
        super().__init__(("0.0.0.0", port), Handler)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Application

    def do_GET(self) -> None:
        """The name of the application."""
        time.sleep(self.server.latency_s)
        body = self.server.name.encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silence: standard output is for answers."""


class Load:
    """Requests, one after the other in each thread, until it is stopped."""

    def __init__(self, url: str, threads: int) -> None:
        self._url = urlsplit(url)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.failed: list[str] = []
        self.by: Counter[str] = Counter()
        self._threads = [threading.Thread(target=self._run, args=(n % 2 == 0,)) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def _run(self, keep: bool) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self._stop.wait(0.01):
            connection = connection or self._connection()
            try:
                connection.request("GET", self._url.path or "/")
                answer = connection.getresponse()
                said = f"{answer.status} {answer.read().decode()}"
            except (OSError, http.client.HTTPException) as error:
                said = repr(error)
            with self._lock:
                if said.startswith("200 "):
                    self.by[said.removeprefix("200 ")] += 1
                else:
                    self.failed.append(f"{time.strftime('%H:%M:%S')} {said}")
            if not keep or not said.startswith("200 ") or answer.will_close:
                connection.close()
                connection = None

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._url.hostname or "", self._url.port, timeout=_TIMEOUT_S)

    def stop(self) -> dict[str, Any]:
        """End it, and tell."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        sent = sum(self.by.values()) + len(self.failed)
        return {"sent": sent, "failed": self.failed[:20], "by": dict(self.by)}


def get(url: str, host: str | None) -> dict[str, Any]:
    """One request on a connection of its own."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", parts.path or "/", headers={"host": host} if host else {})
        answer = connection.getresponse()
        return {"status": answer.status, "body": answer.read().decode()}
    except (OSError, http.client.HTTPException) as error:
        return {"status": 0, "body": "", "error": repr(error)}
    finally:
        connection.close()


def resolve(name: str) -> list[str]:
    """IPv4 addresses of a name, by the system's resolver."""
    try:
        found = socket.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return []
    return sorted({str(entry[4][0]) for entry in found})


def dial(address: str, port: int) -> str:
    """The beginning of the answer to a plain request; empty when the connection brings nothing."""
    try:
        with socket.create_connection((address, port), timeout=3) as connection:
            request = f"GET / HTTP/1.1\r\nhost: {address}:{port}\r\nconnection: close\r\n\r\n"
            connection.sendall(request.encode())
            return connection.recv(4096).decode(errors="replace")
    except OSError:
        return ""


def dial_tls(address: str, port: int, host: str, authorities: str) -> str:
    """Serial number of the server's certificate, status and body of a request; else what went wrong."""
    context = ssl.create_default_context(cafile=authorities)
    try:
        with socket.create_connection((address, port), timeout=_TIMEOUT_S) as plain:
            connection = http.client.HTTPConnection(host, port)
            connection.sock = wrapped = context.wrap_socket(plain, server_hostname=host)
            connection.request("GET", "/", headers={"host": host})
            answer = connection.getresponse()
            serial = int(str((wrapped.getpeercert() or {})["serialNumber"]), 16)
            return f"{serial} {answer.status} {answer.read().decode()}"
    except (OSError, http.client.HTTPException) as error:
        return repr(error)


def main() -> None:
    """Serve, and do what standard input says, until it ends; then only serve."""
    if sys.argv[1] == "dial":
        sys.stdout.write(dial(sys.argv[2], int(sys.argv[3])))
        return
    if sys.argv[1] == "tls":
        sys.stdout.write(dial_tls(sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5]))
        return
    name, port = sys.argv[1], int(sys.argv[2])
    latency_s = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    serving = threading.Thread(target=Application(name, port, latency_s).serve_forever, daemon=True)
    serving.start()
    load: Load | None = None
    for line in sys.stdin:
        asked = json.loads(line)
        told: dict[str, Any]
        if "get" in asked:
            told = get(asked["get"], asked.get("host"))
        elif "resolve" in asked:
            told = {"addresses": resolve(asked["resolve"])}
        elif "dial" in asked:
            told = {"answer": dial(*asked["dial"])}
        elif "load" in asked:
            load = Load(asked["load"], asked.get("threads", 2))
            told = {"running": True}
        elif "stop" in asked and load is not None:
            told, load = load.stop(), None
        else:
            os._exit(int(asked["exit"]))
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
    serving.join()


if __name__ == "__main__":
    main()
