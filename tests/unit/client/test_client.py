from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.api_server import api_server

from weft.client import ApiClient, RefusedError, Server
from weft.errors import WeftError


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("api")
    with api_server(directory):
        yield directory


def https(home: Path, name: str | None) -> Server:
    return Server(
        url=(home / "url").read_text(),
        ca_file=home / "ca.pem",
        certificate_file=home / f"{name}.pem" if name else None,
        key_file=home / f"{name}.key" if name else None,
    )


async def test_https_and_socket_speak_for_the_same_store(home: Path) -> None:
    async with (
        ApiClient(https(home, "admin")) as far,
        ApiClient(Server(socket_path=home / "api.sock")) as near,
    ):
        applied = await far.apply(
            [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}}]
        )
        assert [result["action"] for result in applied["results"]] == ["created"]
        maps = next(resource for resource in await near.resources() if resource.called("cm"))
        assert (await near.get(maps, "default", "c"))["data"] == {"a": "b"}
        assert (await near.list(maps, "default"))["kind"] == "ConfigMapList"
        assert await near.delete(maps, "default", "c") is not None
        assert await near.delete(maps, "default", "c") is None


async def test_the_certificate_says_what_one_may(home: Path) -> None:
    async with ApiClient(https(home, None)) as nobody:
        assert (await nobody.raw("GET", "/version"))["major"] == "1"
        with pytest.raises(RefusedError) as refused:
            await nobody.raw("GET", "/api/v1/namespaces")
        assert (refused.value.code, refused.value.reason) == (401, "Unauthorized")
        assert refused.value.hint
    async with ApiClient(https(home, "reader")) as reader:
        await reader.raw("GET", "/api/v1/namespaces")
        with pytest.raises(RefusedError) as refused:
            await reader.apply([{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}])
        assert refused.value.code == 403


async def test_the_socket_is_its_owner_s_alone(home: Path) -> None:
    assert (home / "api.sock").stat().st_mode & 0o777 == 0o600
    assert (home / "kubeconfig").stat().st_mode & 0o777 == 0o600


async def test_a_server_of_another_authority_is_not_trusted(home: Path, tmp_path: Path) -> None:
    from tests.support.api_server import TestAuthority

    (tmp_path / "ca.pem").write_bytes(TestAuthority().root)
    server = Server(url=(home / "url").read_text(), ca_file=tmp_path / "ca.pem")
    async with ApiClient(server) as client:
        with pytest.raises(WeftError, match="certificate"):
            await client.raw("GET", "/version")


async def test_a_dead_control_plane_is_named_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path))
    async with ApiClient(Server(socket_path=path)) as client:
        with pytest.raises(WeftError, match="does not answer") as refused:
            await client.raw("GET", "/version")
    assert str(path) in refused.value.message
    assert "weft up" in refused.value.hint


async def test_kill_9_keeps_what_was_answered(tmp_path: Path) -> None:
    server = Server(socket_path=tmp_path / "api.sock")
    with api_server(tmp_path) as process:
        async with ApiClient(server) as client:
            await client.apply([{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}}])
        process.kill()
        process.wait()
    with api_server(tmp_path):  # over the socket file that the killed one left
        async with ApiClient(server) as client:
            kept = await client.raw("GET", "/api/v1/namespaces/default/configmaps/kept")
            assert kept["metadata"]["name"] == "kept"


async def test_watches_end_when_the_server_stops(tmp_path: Path) -> None:
    with api_server(tmp_path) as process:
        async with ApiClient(Server(socket_path=tmp_path / "api.sock")) as client:
            namespaces = next(r for r in await client.resources() if r.called("ns"))
            stream = client.watch(namespaces)
            assert (await anext(stream)).kind == "ADDED"
            process.terminate()
            seen = [event.kind async for event in stream]
        assert process.wait(10) == 0
    assert set(seen) <= {"ADDED", "BOOKMARK"}
