"""TLS: whom a certificate may name, by the kind of name."""

from __future__ import annotations

import pytest

from weft import ir
from weft.emit.tls import downstream
from weft.protos.wire import to_dict


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("client.example.com", "DNS"),
        ("spiffe://cluster.local/ns/a/sa/b", "URI"),
        ("urn:uuid:1", "URI"),
        ("ops@example.com", "EMAIL"),
        ("10.0.0.1", "IP_ADDRESS"),
        ("2001:db8::1", "IP_ADDRESS"),
    ],
)
def test_names_of_clients(value: str, kind: str) -> None:
    name = ir.TextMatch(test=ir.TextTest.EXACT, value=value)
    secret = ir.SecretRef(source=ir.SecretFrom.ADS, name="kubernetes-gateway://default/c")
    trust = ir.SecretRef(source=ir.SecretFrom.ADS, name="kubernetes-gateway://default/c-cacert")
    shown = to_dict(downstream(ir.DownstreamTls(certificates=(secret,), trust=trust, peer_names=(name,))))
    context = shown["typed_config"]["common_tls_context"]["combined_validation_context"]
    assert context["default_validation_context"]["match_typed_subject_alt_names"] == [
        {"san_type": kind, "matcher": {"exact": value}}
    ]
