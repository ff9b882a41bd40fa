from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.support.ports import free_port

from weft.errors import UsageError, WeftError
from weft.node.claims import Caller, Claim, Held, check_claim, check_ports, read_claims, unit_of


def test_the_kernel_says_who_calls() -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert Caller.of(one) == Caller(os.getpid(), os.getuid(), os.getgid())


def test_others_need_a_claim_that_covers_both_names() -> None:
    stranger = Caller(1, 4242, 4242)
    claims = (Claim(uid=4242, namespaces=("shop",), service_accounts=("web",)),)
    check_claim(claims, stranger, "shop", "web")
    for namespace, account in (("shop", "admin"), ("istio-system", "web")):
        with pytest.raises(WeftError, match="uid 4242 may not"):
            check_claim(claims, stranger, namespace, account)
    with pytest.raises(WeftError):
        check_claim(claims, Caller(1, 4243, 4242), "shop", "web")
    check_claim((), Caller(1, 0, 0), "istio-system", "any")


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/orders.service\n", "orders.service"),
        ("0::/system.slice/system-orders.slice/orders@1.service/weft-app\n", "orders@1.service"),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", "session-3.scope"),
        # What follows anybody may name: systemd-run --user --unit=orders, or mkdir in a delegated cgroup.
        (
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/orders.service\n",
            "user@1000.service",
        ),
        ("0::/system.slice/other.service/orders.service\n", "other.service"),
        ("0::/weft-default/shop.web/app/orders.service\n", ""),
        ("1:name=x:/orders.service\n0::/\n", ""),
        ("", ""),
    ],
)
def test_a_unit_is_what_systemd_made_not_what_its_user_named(cgroup: str, unit: str) -> None:
    assert unit_of(cgroup) == unit


def test_a_configuration_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text(
        '[[claim]]\nunit = "orders.service"\nnamespaces = ["shop"]\nserviceAccounts = ["orders"]\n'
    )
    assert read_claims(path) == (
        Claim(unit="orders.service", namespaces=("shop",), service_accounts=("orders",)),
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("claim = ", "Invalid value"),
        ("[[clam]]\nuid = 1\n", "'clam' is unknown"),
        ('[[claim]]\nuid = 1\nnamespace = ["a"]\n', "'namespace' is unknown"),
        ("[[claim]]\nuid = 1\n", "lacks 'namespaces'"),
        ('[[claim]]\nnamespaces = ["*"]\n', "for everybody"),
    ],
)
def test_a_mistake_in_it_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "node.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=complaint):
        read_claims(path)


def test_an_ordinary_user_claims_no_port_of_others() -> None:
    """Root's rules would lead all its traffic to that user's sidecar."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        with pytest.raises(WeftError, match="cannot be opened"):
            check_ports([held.getsockname()[1]])
    with pytest.raises(WeftError, match="by root only"):
        check_ports([free_port(), 1])
    check_ports([free_port()])


def test_a_claim_may_name_any_group_of_the_caller() -> None:
    caller = Caller(1, 4242, 4242, groups=frozenset({50}))
    for gid, allowed in ((4242, True), (50, True), (51, False)):
        claim = Claim(gid=gid, namespaces=("shop",))
        assert claim.allows(caller, "shop", "web") is allowed
    assert not Claim(unit="a.service", namespaces=("shop",)).allows(caller, "shop", "web")
    of_unit = Caller(1, 4242, 4242, unit="a.service")
    assert Claim(unit="a.service", namespaces=("shop",)).allows(of_unit, "shop", "web")
    assert not Claim(unit="a.service", uid=1, namespaces=("shop",)).allows(of_unit, "shop", "web")


_KNOCK = """
import os, socket, sys
os.setgroups([4343, 4344]); os.setresgid(4242, 4242, 4242); os.setresuid(4242, 4242, 4242)
with socket.socket(socket.AF_UNIX) as one:
    one.connect(sys.argv[1])
    if sys.argv[2] == "stays":
        one.recv(1)
"""


@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
@pytest.mark.parametrize("how", ["stays", "ends"])
def test_what_is_known_of_a_caller_is_known_only_while_it_runs(how: str) -> None:
    with tempfile.TemporaryDirectory(prefix="weft-t") as made, socket.socket(socket.AF_UNIX) as server:
        path = Path(made) / "s"
        Path(made).chmod(0o711)
        server.bind(str(path))
        path.chmod(0o666)
        server.listen()
        child = subprocess.Popen([sys.executable, "-c", _KNOCK, str(path), how])
        try:
            peer, _ = server.accept()
            with peer:
                if how == "ends":
                    child.wait()
                caller, held = Caller.of(peer), Held(peer)
                groups = frozenset({4343, 4344}) if how == "stays" else frozenset[int]()
                assert (caller.uid, caller.gid, caller.groups) == (4242, 4242, groups)
                assert held.alive() is (how == "stays")
                held.close()
        finally:
            child.kill()
            child.wait()
