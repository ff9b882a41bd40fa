"""The doors: what is taken is refused with a remedy, what a crash left is taken over."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from pathlib import Path

import pytest

from weft.client import ApiClient, Server
from weft.control.api.app import create_app, same_user
from weft.control.api.objects import Objects
from weft.control.api.serve import serve_api
from weft.control.app import control_plane
from weft.control.options import ControlOptions
from weft.errors import WeftError


async def test_what_fails_inside_comes_out_as_it_is_and_nothing_stays(
    objects: Objects, tmp_path: Path
) -> None:
    stop = asyncio.Event()
    app = create_app(objects, authenticate=same_user(os.getuid()), stop=stop)
    path = tmp_path / "api.sock"
    with pytest.raises(LookupError, match="mine"):
        async with serve_api(app, socket_path=path, stop=stop):
            raise LookupError("mine")
    assert stop.is_set()
    assert not path.exists()


async def test_a_socket_that_is_in_use_is_not_taken_away(objects: Objects, tmp_path: Path) -> None:
    stop = asyncio.Event()
    app = create_app(objects, authenticate=same_user(os.getuid()), stop=stop)
    path = tmp_path / "api.sock"
    async with serve_api(app, socket_path=path, stop=stop):
        with pytest.raises(WeftError, match="cannot listen") as refused:
            async with serve_api(app, socket_path=path, stop=asyncio.Event()):
                pass
        assert refused.value.hint
        async with ApiClient(Server(socket_path=path)) as client:
            assert (await client.raw("GET", "/version"))["major"] == "1"


async def test_a_socket_that_a_crash_left_is_taken_over(objects: Objects, tmp_path: Path) -> None:
    stop = asyncio.Event()
    app = create_app(objects, authenticate=same_user(os.getuid()), stop=stop)
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path))
    async with serve_api(app, socket_path=path, stop=stop), ApiClient(Server(socket_path=path)) as client:
        assert (await client.raw("GET", "/version"))["major"] == "1"


async def test_a_port_that_is_in_use(objects: Objects) -> None:
    stop = asyncio.Event()
    app = create_app(objects, authenticate=same_user(os.getuid()), stop=stop)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(WeftError, match=f"127.0.0.1:{port}"):
            async with serve_api(
                app, host="127.0.0.1", port=port, stop=stop,
                ssl_context_factory=lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
            ):  # fmt: skip
                pass


async def test_a_stranger_on_the_socket_is_not_let_in(objects: Objects, tmp_path: Path) -> None:
    from weft.client import RefusedError

    stop = asyncio.Event()
    app = create_app(objects, authenticate=lambda _: _nobody(), stop=stop)
    path = tmp_path / "api.sock"
    async with serve_api(app, socket_path=path, stop=stop), ApiClient(Server(socket_path=path)) as client:
        for where in ("/api/v1/namespaces", "/apis", "/weft/v1/apply", "/openapi/v3", "/nothing"):
            with pytest.raises(RefusedError) as refused:
                await client.raw("GET", where)
            assert refused.value.code == 401
        assert (await client.raw("GET", "/version"))["major"] == "1"


async def _nobody() -> None:
    return None


@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
@pytest.mark.parametrize("whose", ["the directory", "the one above"])
async def test_a_directory_of_another_user_gets_no_sockets(tmp_path: Path, whose: str) -> None:
    runtime = tmp_path / "weft-4242" / "default"
    runtime.mkdir(parents=True)
    os.chown(runtime if whose == "the directory" else runtime.parent, 4242, 4242)
    options = ControlOptions(runtime=runtime, state=tmp_path / "state", listen="127.0.0.1")
    with pytest.raises(WeftError, match="belongs to uid 4242"):
        async with control_plane(options, asyncio.Event()):
            pass
    assert list(runtime.iterdir()) == []
