"""A workload's key and certificate: made here, delivered to its Envoy by file, renewed before they expire.

The private key never leaves this host: what is sent away is a certificate request.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from weft.errors import WeftError
from weft.identity.card import card_of
from weft.identity.pin import spki_sha256
from weft.identity.revocation import revokes
from weft.identity.trust import Trust, split
from weft.names import (
    SECRET_TYPE,
    WORKLOAD_CERTIFICATE,
    WORKLOAD_CERTIFICATE_FILE,
    WORKLOAD_TRUST_BUNDLE,
    WORKLOAD_TRUST_BUNDLE_FILE,
)
from weft.node.layout import write_atomic

log = logging.getLogger(__name__)

_SPIFFE_VALIDATOR: Final = "envoy.tls.cert_validator.spiffe"
_SPIFFE_TYPE: Final = (
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig"
)
_RETRY_FIRST_S: Final = 1.0
_RETRY_MAX_S: Final = 300.0
# An issuer about to expire gives ever shorter lives: do not chase them.
_PAUSE_MIN_S: Final = 0.25
# A host may sleep, and its clock may be set: look at the clock at least this often.
_LOOK_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Signed:
    """What the control plane answers: the chain (PEM), and what peers are verified by."""

    certificate: str
    trust: Trust

    @classmethod
    def parse(cls, answer: Any) -> Signed:
        """Read the JSON form.

        Raises:
            WeftError: it is none.
        """
        if not isinstance(answer, dict) or not isinstance(answer.get("certificate"), str):
            raise WeftError(
                "the control plane's answer holds no certificate",
                hint="is this really its address? see 'weft check'",
            )
        return cls(answer["certificate"], Trust.parse(answer, "bundle"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A key with its certificate chain and the trust bundle, all PEM. Times in UTC.

    ``bundle`` has the roots and what they revoked; ``domains`` what each trust domain is verified by, if
    there are several (``Trust``). ``since`` is when it came; certificates are backdated, so ``not_before``
    is too early to count from.
    """

    key: str = field(repr=False)
    certificate: str = field(repr=False)
    bundle: str = field(repr=False)
    not_before: datetime
    not_after: datetime
    since: datetime
    domains: tuple[tuple[str, str], ...] = ()

    @property
    def trust(self) -> Trust:
        """What peers are verified by."""
        return Trust(pem=self.bundle, domains=self.domains)

    @property
    def serial(self) -> int:
        """The certificate's number."""
        return x509.load_pem_x509_certificate(self.certificate.encode()).serial_number

    @property
    def card(self) -> str:
        """What the certificate says of its bearer beside the identity (``weft.card``)."""
        return card_of(x509.load_pem_x509_certificate(self.certificate.encode()))

    @property
    def issuer(self) -> str:
        """The hash of the key that signed the certificate; empty when that is not known any more."""
        leaf, *chain = x509.load_pem_x509_certificates(self.certificate.encode())
        for above in chain or x509.load_pem_x509_certificates(self.bundle.encode()):
            if above.subject == leaf.issuer and _issued(leaf, above):
                return spki_sha256(above.public_key())
        return ""

    @property
    def version(self) -> str:
        """What Envoy's admin calls it: issuer and serial number."""
        return f"{self.issuer}.{self.serial:x}"

    @classmethod
    def of(cls, key: str, signed: Signed, *, since: datetime | None = None) -> Credential:
        """Join what was made here with what was answered.

        Raises:
            WeftError: when the answer holds no certificate, or one for another key.
        """
        try:
            leaf = x509.load_pem_x509_certificate(signed.certificate.encode())
            x509.load_pem_x509_certificates(signed.trust.pem.encode())
        except (ValueError, x509.InvalidVersion) as error:
            raise WeftError(
                "the control plane's answer holds no certificate",
                hint="is this really its address? see 'weft check'",
            ) from error
        if _public(key) != leaf.public_key():
            raise WeftError(
                "the control plane certified another key", hint="try again; if it stays, report it"
            )
        return cls(
            key=key,
            certificate=signed.certificate,
            bundle=signed.trust.pem,
            domains=signed.trust.domains,
            not_before=leaf.not_valid_before_utc,
            not_after=leaf.not_valid_after_utc,
            since=leaf.not_valid_before_utc if since is None else since,
        )

    def check(self, name: str, now: datetime) -> None:
        """That it is valid now.

        Raises:
            WeftError: it is not, so the clocks of this host and of the control plane differ.
        """
        if not self.not_before <= now < self.not_after:
            raise WeftError(
                f"the new certificate of {name} is valid from {self.not_before:%Y-%m-%d %H:%M:%S} to "
                f"{self.not_after:%Y-%m-%d %H:%M:%S} UTC, and here it is {now:%Y-%m-%d %H:%M:%S}",
                hint="the clocks differ: set this host's and the control plane's by NTP",
            )

    def names(self, identity: str) -> bool:
        """Whether it is the certificate of this identity (a URI)."""
        leaf = x509.load_pem_x509_certificate(self.certificate.encode())
        try:
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return False
        return names.get_values_for_type(x509.UniformResourceIdentifier) == [identity]

    def renew_at(self, share: float) -> datetime:
        """When ``share`` (0 to 1) of its life is over."""
        return self.since + (self.not_after - self.since) * share


def make_key() -> str:
    """A new P-256 key, PKCS 8, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _load(key: str) -> ec.EllipticCurvePrivateKey:
    loaded = load_pem_private_key(key.encode(), password=None)
    assert isinstance(loaded, ec.EllipticCurvePrivateKey)
    return loaded


def _public(key: str) -> ec.EllipticCurvePublicKey:
    return _load(key).public_key()


def request_for(key: str) -> str:
    """A certificate request (PEM) for a key. It asks for no names: the control plane decides them."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(_load(key), hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def write_secrets(directory: Path, credential: Credential, *, owner: int | None = None) -> None:
    """Give a credential to the Envoy that watches ``directory``. Its admin interface tells the versions.

    Two files, since Envoy takes one secret from a file. The key and its chain change in one step, in one
    file. The bundle goes first: whoever trusts the new root before it meets its certificates refuses none.

    Args:
        owner: the uid that Envoy runs as; the files are readable by it alone.
    """
    bundle = _secret(
        WORKLOAD_TRUST_BUNDLE, {"validation_context": _validation(credential.trust)}, credential.trust.version
    )
    own = _secret(
        WORKLOAD_CERTIFICATE,
        {
            "tls_certificate": {
                "certificate_chain": {"inline_string": credential.certificate},
                "private_key": {"inline_string": credential.key},
            }
        },
        credential.version,
    )
    for name, body in ((WORKLOAD_TRUST_BUNDLE_FILE, bundle), (WORKLOAD_CERTIFICATE_FILE, own)):
        path = directory / name
        # Envoy reloads on every file that is moved in: what is the same stays.
        if not path.exists() or path.read_bytes() != body:
            write_atomic(path, body, owner=owner)


def read_secrets(directory: Path, identity: str) -> Credential | None:
    """The credential of ``identity`` that an earlier agent left for an Envoy; None when there is none."""
    try:
        own = json.loads((directory / WORKLOAD_CERTIFICATE_FILE).read_bytes())["resources"][0]
        trust = json.loads((directory / WORKLOAD_TRUST_BUNDLE_FILE).read_bytes())["resources"][0]
        pair = own["tls_certificate"]
        found = Credential.of(
            pair["private_key"]["inline_string"],
            Signed(pair["certificate_chain"]["inline_string"], _trust(trust["validation_context"])),
        )
        return found if found.names(identity) else None
    except (OSError, ValueError, LookupError, TypeError, WeftError):
        return None


def _secret(name: str, content: dict[str, Any], version: str) -> bytes:
    resource = {"@type": SECRET_TYPE, "name": name, **content}
    body = {"version_info": version, "resources": [resource]}
    return json.dumps(body, separators=(",", ":")).encode()


def _validation(trust: Trust) -> dict[str, Any]:
    """Envoy's ``CertificateValidationContext``. With several trust domains each vouches for itself alone."""
    roots, lists = split(trust.pem)
    context: dict[str, Any] = {"trusted_ca": {"inline_string": roots}}
    if lists:
        # Who signed an intermediate may be far away, and its lists with it.
        context |= {"crl": {"inline_string": lists}, "only_verify_leaf_cert_crl": True}
    if trust.domains:
        domains = [{"name": name, "trust_bundle": {"inline_string": pem}} for name, pem in trust.domains]
        config = {"@type": _SPIFFE_TYPE, "trust_domains": domains}
        context["custom_validator_config"] = {"name": _SPIFFE_VALIDATOR, "typed_config": config}
    return context


def _trust(context: dict[str, Any]) -> Trust:
    """Read what ``_validation`` wrote."""
    pem = context["trusted_ca"]["inline_string"] + context.get("crl", {}).get("inline_string", "")
    custom = context.get("custom_validator_config", {}).get("typed_config", {})
    domains = [(one["name"], one["trust_bundle"]["inline_string"]) for one in custom.get("trust_domains", [])]
    return Trust(pem=pem, domains=tuple(domains))


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


Sign = Callable[[str], Awaitable[Signed]]


class Keeper:
    """Keeps one credential valid: the first at ``start``, a new key and certificate at half of each life.

    A renewal that fails is tried again with growing pauses; the old certificate serves on until then.

    Args:
        sign: turns a request (PEM) into a certificate; raises ``WeftError`` when it cannot now.
        deliver: is given each new credential, as ``write_secrets`` of a workload's directory.
        clock: the time (UTC).
    """

    def __init__(
        self,
        name: str,
        sign: Sign,
        deliver: Callable[[Credential], None],
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.name = name
        self.credential: Credential | None = None
        self.error: WeftError | None = None
        self._sign = sign
        self._deliver = deliver
        self._clock = clock
        self._woken = asyncio.Event()

    async def start(self, found: Credential | None = None) -> Credential:
        """The first credential: ``found`` (of an earlier agent), if half of its life is still ahead.

        Raises:
            WeftError: the control plane refuses or does not answer.
        """
        if found is not None and self._clock() < found.renew_at(0.5):
            self.credential = found
            return found
        try:
            return await self.renew()
        except WeftError:
            # Without a control plane an adopted workload goes on with what it has.
            if found is None or self._clock() >= found.not_after:
                raise
            self.credential = found
            return found

    async def renew(self) -> Credential:
        """Get a new certificate for a new key, and deliver it.

        Raises:
            WeftError: it was refused, did not come, or is not valid now (the clocks differ).
        """
        key = make_key()
        signed = await self._sign(request_for(key))
        now = self._clock()
        fresh = Credential.of(key, signed, since=now)
        fresh.check(self.name, now)
        self._hand_over(fresh)
        self.error = None
        return fresh

    def trust(self, trust: Trust) -> None:
        """Deliver another trust bundle with the certificate that there is.

        A new certificate is due at once if another authority signs from now on, and if the old one was
        revoked.

        Raises:
            WeftError: when it is no bundle, or cannot be written.
        """
        old = self.credential
        if old is None:
            return
        if old.trust != Trust(pem=trust.pem, domains=trust.domains):
            self._hand_over(Credential.of(old.key, Signed(old.certificate, trust), since=old.since))
        _, lists = split(trust.pem)
        if (
            _first(trust.pem) != _first(old.bundle)
            or (trust.issuer and trust.issuer != old.issuer)
            or (lists and revokes(lists, old.serial))
        ):
            self.hurry()

    def _hand_over(self, credential: Credential) -> None:
        try:
            self._deliver(credential)
        except OSError as error:
            raise WeftError(
                f"cannot write the certificate of {self.name}: {error.strerror}",
                hint="is the disk full, or the runtime directory gone?",
            ) from error
        self.credential = credential

    def hurry(self) -> None:
        """Try now: the control plane is back, or the certificate shall be replaced."""
        self._woken.set()

    async def keep(self) -> None:
        """Renew for ever. Run it as a task, after ``start``."""
        failures = 0
        share = _share()
        while True:
            credential = self.credential
            assert credential is not None, "start() comes first"
            if failures:
                pause = min(_RETRY_FIRST_S * 2.0 ** min(failures - 1, 16), _RETRY_MAX_S)
                # Close to the end hurry is due, however often it has failed.
                left = (credential.not_after - self._clock()).total_seconds()
                pause = min(pause, max(left / 8, _RETRY_FIRST_S)) * random.uniform(0.75, 1.25)
            else:
                due = (credential.renew_at(share) - self._clock()).total_seconds()
                pause = max(due, _PAUSE_MIN_S)
            hurried = await self._wait(min(pause, _LOOK_S))
            if not failures and not hurried and self._clock() < credential.renew_at(share):
                continue
            try:
                await self.renew()
            except WeftError as error:
                failures += 1
                self.error = error
                level = logging.ERROR if self._clock() > credential.renew_at(0.9) else logging.WARNING
                hint = f" ({error.hint})" if failures == 1 and error.hint else ""
                log.log(
                    level, "certificate of %s not renewed (try %d): %s%s", self.name, failures, error, hint
                )
            else:
                failures, share = 0, _share()

    async def _wait(self, seconds: float) -> bool:
        """Whether ``hurry`` was called before ``seconds`` were over."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return False
        self._woken.clear()
        return True


def _first(bundle: str) -> str:
    return bundle.partition("-----END")[0]


def _share() -> float:
    """Half, give or take a tenth: a thousand workloads that started together do not renew together."""
    return random.uniform(0.45, 0.55)
