from __future__ import annotations

import os

import pytest

from weft.errors import WeftError
from weft.node.capture.choose import Host, Mode, choose

ROOT = Host(root=True, nft=True, ip=True, cgroup2=True)
USER = Host(root=False, nft=True, ip=True, cgroup2=True)


def host(**changes: object) -> Host:
    fields: dict[str, object] = {"root": True, "nft": True, "ip": True, "cgroup2": True, **changes}
    return Host(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("where", "own_network", "mode"),
    [
        (ROOT, False, Mode.NFT),
        (ROOT, True, Mode.NETNS),
        (host(cgroup2=False), True, Mode.NETNS),
        (host(cgroup2=False), False, Mode.SECCOMP),
        (host(nft=False), False, Mode.SECCOMP),
        (USER, False, Mode.SECCOMP),
        (host(root=False, userns_error="off"), False, Mode.ENV),
        (host(root=False, seccomp_error="old"), True, Mode.ENV),
    ],
)
def test_the_best_that_the_host_can_do(where: Host, own_network: bool, mode: Mode) -> None:
    assert choose("auto", where, own_network=own_network).mode is mode


def test_a_lesser_choice_says_why_and_every_choice_what_it_lacks() -> None:
    choice = choose("auto", host(nft=False), own_network=False)
    assert "nft is not installed" in str(choice)
    for mode in Mode:
        assert choose(str(mode), ROOT, own_network=mode is Mode.NETNS).limits


def test_without_rewriting_an_application_must_listen_where_it_is_told() -> None:
    assert any("$HOST:$PORT" in limit for limit in choose("env", USER, own_network=True).limits)
    assert not any("$HOST:$PORT" in limit for limit in choose("env", USER, own_network=False).limits)
    assert not any("$HOST:$PORT" in limit for limit in choose("seccomp", USER, own_network=True).limits)


@pytest.mark.parametrize(
    ("machine", "error", "said"),
    [("x86_64", "", False), ("aarch64", "", True), ("riscv64", "riscv64", False)],
)
def test_a_machine_that_was_not_tested_says_so(
    monkeypatch: pytest.MonkeyPatch, machine: str, error: str, said: bool
) -> None:
    kernel = os.uname_result(("Linux", "host", "6.18.0", "#1", machine))
    monkeypatch.setattr(os, "uname", lambda: kernel)
    assert error in Host.look().seccomp_error
    limits = choose("seccomp", USER, own_network=False).limits
    assert any("not tested on aarch64" in limit for limit in limits) is said


@pytest.mark.parametrize(
    ("wanted", "where", "complaint"),
    [
        ("nft", USER, "needs root"),
        ("nft", host(nft=False), "not installed"),
        ("nft", host(cgroup2=False), "no cgroup2"),
        ("seccomp", host(userns_error="user namespaces are turned off"), "turned off"),
        ("magic", ROOT, "is not a capture"),
    ],
)
def test_what_was_asked_for_and_cannot_be_had_is_an_error_with_a_remedy(
    wanted: str, where: Host, complaint: str
) -> None:
    with pytest.raises(WeftError, match=complaint) as caught:
        choose(wanted, where, own_network=False)
    assert caught.value.hint


def test_this_host_is_looked_at_without_a_change() -> None:
    assert Host.look() == Host.look()
