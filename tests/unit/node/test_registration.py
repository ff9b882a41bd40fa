from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.instance import Instance, InstanceError
from weft.node.link import Link
from weft.node.registration import Registrations
from weft.node.session import Session


def instance(name: str = "web-0", *, address: str = "192.0.2.7") -> Instance:
    return Instance(namespace="shop", name=name, address=address)


def test_all_is_told_again() -> None:
    known = Registrations()
    known.want(instance("b"))
    known.want(instance("a"))
    known.update("shop/b", ready=True, message="")
    assert [(entry["id"], entry["ready"]) for entry in known.all()] == [("shop/a", False), ("shop/b", True)]


def test_only_changes_are_told() -> None:
    known = Registrations()
    known.want(instance())
    assert known.update("shop/web-0", ready=True, message="")
    assert not known.update("shop/web-0", ready=True, message="")
    assert not known.update("shop/none", ready=True, message="")


def test_registered_again_it_stays_ready() -> None:
    known = Registrations()
    known.want(instance())
    known.update("shop/web-0", ready=True, message="")
    assert known.want(instance(address="192.0.2.8")).ready


def test_draining_outlasts_a_reconnect() -> None:
    known = Registrations()
    known.want(instance())
    assert known.drain("shop/web-0")
    known.lost()
    assert known.all()[0]["draining"] is True
    assert known.forget("shop/web-0")
    assert known.all() == []
    assert not known.drain("shop/web-0")


def test_what_has_gone_is_told_until_it_is_heard() -> None:
    known = Registrations()
    known.want(instance("a"))
    known.want(instance("b"))
    known.forget("shop/a")
    told = known.gone()
    known.forget("shop/b")
    known.heard(told)
    assert known.gone() == {"shop/b"}
    known.want(instance("b"))
    assert not known.gone(), "it is back"


def test_a_confirmation_holds_for_a_session() -> None:
    known = Registrations()
    known.want(instance())
    known.refuse("shop/web-0", "taken")
    assert known.refusals() == {"shop/web-0": "taken"}
    known.confirm("shop/web-0")
    assert known.confirmed("shop/web-0")
    assert not known.refusals()
    known.lost()
    assert not known.confirmed("shop/web-0")


def test_the_session_is_the_nodes_link() -> None:
    kept: type[Link] = Session  # mypy compares each method
    assert kept is Session


names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)


@given(
    st.builds(
        Instance,
        namespace=names,
        name=names,
        service_account=names,
        service=st.one_of(st.just(""), names),
        labels=st.dictionaries(names, names, max_size=4),
        address=st.ip_addresses().map(str),
        ports=st.dictionaries(names, st.integers(1, 65535), max_size=4),
        ready=st.booleans(),
        draining=st.booleans(),
        message=st.text(max_size=100),
    )
)
def test_what_is_written_is_read(value: Instance) -> None:
    assert Instance.parse(value.to_dict()) == value


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = sorted(instance().to_dict())


@given(st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=len(FIELDS)) | json_values)
def test_anything_else_is_refused_in_words(body: object) -> None:
    with contextlib.suppress(InstanceError):
        read = Instance.parse(body)
        assert Instance.parse(read.to_dict()) == read


@pytest.mark.parametrize("address", ["::1", "192.0.2.7", "127.80.3.1"])
def test_addresses(address: str) -> None:
    assert Instance.parse({"namespace": "a", "name": "b", "address": address}).address == address
