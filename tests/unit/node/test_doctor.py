"""What ``weft check`` says of the authority, by what the node itself holds."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import pytest

from weft.identity.ca import Authority
from weft.identity.trust import Trust
from weft.node.doctor import _authority
from weft.node.enrolment import Membership
from weft.node.keys import Credential, Signed, make_key, request_for
from weft.node.layout import Layout
from weft.spiffe import NodeId


def joined(layout: Layout, made: dt.datetime) -> None:
    """A member of a mesh whose root was made then."""
    now, key, authority = dt.datetime.now(dt.UTC), make_key(), Authority.create(made)
    chain = authority.sign(request_for(key), NodeId("cluster.local", "a"), now=now)
    credential = Credential.of(key, Signed(chain, Trust(pem=authority.bundle)), since=now)
    layout.state.mkdir(parents=True, exist_ok=True)
    Membership(
        node="a", api="https://x:15017", xds="x:15012", trust_domain="cluster.local", credential=credential
    ).save(layout.state)


@pytest.mark.parametrize(("age_years", "status"), [(0, "ok"), (9, "ok"), (9.9, "warn")])
def test_a_root_that_expires_soon_is_said(tmp_path: Path, age_years: float, status: str) -> None:
    layout = replace(Layout.of("t"), state=tmp_path)
    assert _authority(layout) == []
    joined(layout, dt.datetime.now(dt.UTC) - dt.timedelta(days=365 * age_years))
    (finding,) = _authority(layout)
    assert (finding.name, finding.status) == ("authority", status)
    assert ("weft ca rotate" in finding.remedy) == (status == "warn")
