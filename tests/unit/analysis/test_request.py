"""Requests as they are written in JSON."""

from __future__ import annotations

from typing import Any

import pytest

from weft.analysis.explain.request import ClientTls, Role, read_request

SENDER = {"workload": "shop/web"}


def test_what_is_not_said() -> None:
    request = read_request({"from": SENDER})
    assert (request.sender.role, request.sender.namespace, request.sender.name) == (
        Role.WORKLOAD,
        "shop",
        "web",
    )
    assert (request.method, request.path, request.protocol, request.tls) == (
        "GET",
        "/",
        "http",
        ClientTls.NONE,
    )
    assert request.answer_status == 200


def test_which_proxies_may_be_meant() -> None:
    """A Workload's replicas and a Gateway's proxy have longer names than what people write."""
    assert read_request({"from": SENDER}).sender.proxies == ("shop/web", "shop/web-0")
    gateway = read_request({"from": {"gateway": "shop/edge"}}).sender
    assert gateway.proxies == ("shop/edge", "shop/edge-weft", "shop/edge-istio")


def test_grpc_is_a_post_of_its_type() -> None:
    request = read_request({"from": SENDER, "protocol": "grpc"})
    assert request.method == "POST"
    assert request.is_grpc
    assert request.headers["te"] == ("trailers",)


def test_headers_are_joined_by_lower_case_and_the_host_is_apart() -> None:
    http = {"headers": {"X-A": ["1"], "x-a": "2", "Host": ["reviews"]}}
    request = read_request({"from": SENDER, "http": http})
    assert request.headers == {"x-a": ("1", "2")}
    assert request.host == "reviews"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "a request must be a JSON object"),
        ({}, "from: say which proxy"),
        ({"from": {}}, "from: name one of"),
        ({"from": {"workload": "a/b", "gateway": "a/b"}}, "from: name one of"),
        ({"from": {"workload": ""}}, "from.workload"),
        ({"from": {"workload": "a/b/c"}}, "from.workload"),
        ({"from": {"workload": "a/b", "pod": "x"}}, "from.pod"),
        ({"from": {"workload": "a/b", "labels": {"x": 1}}}, "from.labels"),
        ({"from": SENDER, "prot": "http"}, "prot: there is no such field"),
        ({"from": SENDER, "protocol": "quic"}, "protocol: 'quic'"),
        ({"from": SENDER, "tls": "yes"}, "tls: 'yes'"),
        ({"from": SENDER, "port": "80"}, "port: must be"),
        ({"from": SENDER, "port": 0}, "port: must be"),
        ({"from": SENDER, "http": []}, "http: must be an object"),
        ({"from": SENDER, "http": {"path": 1}}, "http.path: must be text"),
        ({"from": SENDER, "http": {"headers": {"x": 1}}}, "http.headers.x"),
        ({"from": SENDER, "alpn": 1}, "alpn"),
        ({"from": SENDER, "response": {"status": 99}}, "response.status"),
    ],
)
def test_what_cannot_be_read(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("[", "\\[")) as error:
        read_request(data)
    assert str(error.value).startswith(message)
