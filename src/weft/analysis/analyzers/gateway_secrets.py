"""Certificates of Istio Gateways (IST0101, IST0138, IST0161)."""

from __future__ import annotations

import base64
import binascii
import warnings
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from cryptography import x509

from weft.analysis.analyzers.gateways import GATEWAY, no_workload
from weft.analysis.objects import Object
from weft.analysis.scene import Found, Scene, meant, selects
from weft.analysis.tree import pairs, rows, table, word

_PAIRS: Final = (("cert", "key"), ("tls.crt", "tls.key"))
_BEGIN: Final = b"-----BEGIN "


def secrets(scene: Scene) -> Iterator[Found]:
    """Secrets that do not exist where the gateway runs, or hold nothing usable."""
    for gateway in scene.of(GATEWAY):
        selector = pairs(gateway.spec, "selector")
        home = next((pod.namespace for pod in scene.pods if selects(selector, pod.labels)), None)
        if home is None:
            yield no_workload(gateway, selector)
            continue
        for index, server in rows(gateway.spec, "servers"):
            name = word(server, "tls", "credentialName")
            if not name:
                continue
            path = ("spec", "servers", index, "tls", "credentialName")
            space, _, short = name.rpartition("/")
            secret = scene.find("/Secret", space or home, short)
            if secret is None:
                known = (one.name for one in scene.of("/Secret") if one.namespace == (space or home))
                hint = meant(short, known)
                message = f"there is no Secret {name!r} in {space or home}, where the gateway runs{hint}"
                yield Found(gateway, "IST0101", message, path)
            elif flaw := _flaw(secret):
                yield Found(gateway, "IST0161", f"the Secret {secret.full_name} {flaw}", path)


def _flaw(secret: Object) -> str:
    """Why a secret holds no certificate that can be served."""
    data = table(secret.data, "data")
    plain = pairs(secret.data, "stringData")
    for certificate, key in _PAIRS:
        chain = _value(data, plain, certificate)
        if chain and _value(data, plain, key):
            return _unusable(chain)
    return "has neither tls.crt and tls.key nor cert and key"


def _value(data: Mapping[str, Any], plain: Mapping[str, str], key: str) -> bytes:
    if key in plain:
        return plain[key].encode()
    try:
        return base64.b64decode("".join(word(data, key).split()), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _unusable(chain: bytes) -> str:
    begin = chain.find(_BEGIN)
    if begin < 0:
        return "holds no PEM"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old forms, which proxies read as well
            certificate = x509.load_pem_x509_certificate(chain[begin:])
    except ValueError:
        return "holds no certificate that can be read"
    now = datetime.now(UTC)
    if now > certificate.not_valid_after_utc:
        return f"holds a certificate that expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
    if now < certificate.not_valid_before_utc:
        return f"holds a certificate that is valid from {certificate.not_valid_before_utc:%Y-%m-%d} only"
    return ""


def duplicates(scene: Scene) -> Iterator[Found]:
    """Gateways that serve the same certificate on the same workload."""
    gateways = list(scene.of(GATEWAY))
    for gateway in gateways:
        selector = pairs(gateway.spec, "selector")
        for other in gateways:
            if other is gateway or not selects(selector, pairs(other.spec, "selector")):
                continue
            for _, server in rows(gateway.spec, "servers"):
                own = table(server, "tls")
                if any(_alike(own, table(one, "tls")) for _, one in rows(other.spec, "servers")):
                    message = (
                        f"{other.full_name} serves the same certificate: "
                        "a client that reuses a connection may get 404"
                    )
                    yield Found(gateway, "IST0138", message, ("metadata", "name"))
                    break


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    name = word(one, "credentialName")
    if name or word(other, "credentialName"):
        return name == word(other, "credentialName")
    files = [(word(tls, "serverCertificate"), word(tls, "privateKey")) for tls in (one, other)]
    return all(files[0]) and files[0] == files[1]
