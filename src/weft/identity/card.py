"""Where a card (``weft.card``) stands in a certificate: in an otherName.

Not in the Subject: Envoy's policies compare a principal with it when no URI fits, and OpenSSL a host name
with its common name; the workload's owner could choose both. An otherName is looked at by nobody who does not
ask for it, and X509-SVID (section 2) allows it beside the one URI.
"""

from __future__ import annotations

from typing import Final

from cryptography import x509

from weft.card import OID

_TYPE: Final = x509.ObjectIdentifier(OID)
_UTF8_STRING: Final = 0x0C
_SHORT: Final = 0x80


def other_name(card: str) -> x509.OtherName:
    """The name that says it."""
    return x509.OtherName(_TYPE, _encoded(card.encode()))


def card_of(certificate: x509.Certificate) -> str:
    """The text of a certificate's card; empty when it has none."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    for name in names.get_values_for_type(x509.OtherName):
        if name.type_id == _TYPE:
            return _decoded(name.value)
    return ""


def _encoded(body: bytes) -> bytes:
    """A UTF8String in DER (ITU-T X.690, 8.1)."""
    size = len(body)
    if size < _SHORT:
        return bytes((_UTF8_STRING, size)) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((_UTF8_STRING, _SHORT | len(length))) + length + body


def _decoded(value: bytes) -> str:
    """The text of a UTF8String as ``_encoded`` writes it; empty for anything else."""
    if len(value) < 2:
        return ""
    more = value[1] - _SHORT if value[1] >= _SHORT else 0
    body = value[2 + more :]
    return body.decode(errors="replace") if value == _encoded(body) else ""
