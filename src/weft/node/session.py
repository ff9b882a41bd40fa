"""The node's session with its control plane: it comes back by itself, and nothing that runs waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import ssl
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import aiohttp

from weft import __version__
from weft.errors import WeftError
from weft.identity.trust import Trust
from weft.instance import Instance
from weft.names import (
    CLUSTER_DOMAIN,
    CONTROL_PLANE_ACCOUNT,
    CONTROL_PLANE_HOST,
    ROOT_NAMESPACE,
    TELEMETRY_PORT,
)
from weft.node.certificates import Certificates, behind, trust_all
from weft.node.enrolment import Membership
from weft.node.inquiry import Ask, Look, Show, reply_series, reply_to, reply_usage
from weft.node.keys import Credential, Keeper, Signed
from weft.node.link import Endpoint
from weft.node.loaded import Loading
from weft.node.names import HeardNames, Names
from weft.node.registration import Registrations
from weft.node.remote import Denied, Disowned, call, explain, reason, trusting_context
from weft.node.taps import Taps, hold
from weft.spiffe import SpiffeId
from weft.start import ProxyStart

log = logging.getLogger(__name__)

Message = dict[str, Any]

_LEASE_S: Final = 15.0
_PAUSE_FIRST_S: Final = 0.1
# Well below a lease, so that a control plane that restarts sees its nodes before their leases lapse.
_PAUSE_MAX_S: Final = 5.0
_ANSWER_S: Final = 10.0
_CONNECT_S: Final = 5.0
_MESSAGE_MAX: Final = 64 * 1024 * 1024


class Session:
    """Implements ``Link``. Make it in a running loop, let ``run`` run as a task, ``close`` at the end.

    Args:
        state: where the renewed membership is kept.
        addresses: of this host, for operators to see.
        capture: what this node can do, for operators to see.
        metrics: where it shows its series, as a URL; empty: nowhere but on this host.
    """

    def __init__(
        self,
        membership: Membership,
        state: Path,
        *,
        addresses: tuple[str, ...] = (),
        capture: str = "",
        metrics: str = "",
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.error: WeftError | None = None
        self._membership = membership
        self._state = state
        self._about = {"addresses": list(addresses), "capture": capture, "version": __version__}
        if metrics:
            self._about["metrics"] = metrics
        self._clock = clock
        self._domain = CLUSTER_DOMAIN
        self._xds = membership.xds
        self._telemetry_port = TELEMETRY_PORT
        self._registrations = Registrations()
        self._answers: dict[str, asyncio.Future[ProxyStart]] = {}
        self._drains: dict[str, asyncio.Future[bool]] = {}
        self._names = HeardNames()
        self._trust_calls: list[Callable[[Trust], None]] = []
        self._ask: Ask | None = None
        self._taps: Taps | None = None
        self._look: Look | None = None
        self._show: Show | None = None
        self._trust = membership.credential.trust
        self._inquiries: set[asyncio.Task[None]] = set()
        self._certificates = Certificates(clock, lambda: self._loading.wake())
        self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=16))
        self._context = self._make_context()
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._connected = asyncio.Event()
        self._heard = 0.0
        self._told: frozenset[str] = frozenset()
        self._lease_s = _LEASE_S
        self._loading = Loading(
            lambda: self._membership.credential,
            lambda: [keeper.credential for keeper in self._certificates.keepers() if keeper.credential],
            lambda: (self._registrations.ids(), self._ask),
            self._send,
            lambda: trust_all(self._trust, behind(self._trust, self._all_keepers())),
        )
        self._keeper = Keeper(
            f"node {membership.node}", lambda csr: self._sign({"csr": csr}), self._renewed, clock=clock
        )

    @property
    def connected(self) -> bool:
        """Whether the session stands now."""
        return self._connected.is_set()

    @property
    def membership(self) -> Membership:
        """Who this node is, with its newest certificate."""
        return self._membership

    @property
    def xds(self) -> Endpoint:
        """Where Envoys connect to."""
        host, _, port = self._xds.rpartition(":")
        control_plane = SpiffeId(self._membership.trust_domain, ROOT_NAMESPACE, CONTROL_PLANE_ACCOUNT)
        return Endpoint(
            host=host.strip("[]"),
            port=int(port),
            # No DNS name: where several trust domains are trusted, Envoy compares URIs only.
            names=(str(control_plane),),
            telemetry_port=self._telemetry_port,
        )

    @property
    def domain(self) -> str:
        """The cluster domain."""
        return self._domain

    @property
    def names(self) -> Names:
        """The table of names, as it was heard last."""
        return self._names.table

    def on_names(self, call: Callable[[Names], None]) -> None:
        """Call back with the whole table whenever it changes."""
        self._names.follow(call)

    def on_admin(self, ask: Ask) -> None:
        """Let the control plane ask the Envoys of this node."""
        self._ask, self._taps = ask, Taps(ask)
        self._loading.wake()

    def on_usage(self, look: Look) -> None:
        """Let the control plane ask what the workloads of this node use."""
        self._look = look

    def on_series(self, show: Show) -> None:
        """Let the control plane ask what this node shows of itself."""
        self._show = show

    def refusals(self) -> dict[str, str]:
        """Why instances that run here are not known to the control plane."""
        return self._registrations.refusals()

    async def wait_connected(self, timeout_s: float) -> bool:
        """Whether the session stands, waited for so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._connected.wait()
        return self.connected

    async def run(self) -> None:
        """Hold the session and the node's own certificate, for ever."""
        self._keeper.credential = self._membership.credential
        async with asyncio.TaskGroup() as parts:
            parts.create_task(self._keeper.keep(), name="node certificate")
            parts.create_task(self._hold(), name="session")

    async def close(self) -> None:
        """Let go. What is registered stays for a lease; certificates stay where they are."""
        for task in self._inquiries:
            task.cancel()
        if self._taps is not None:
            await self._taps.close()
        await asyncio.gather(self._certificates.close(), *self._inquiries, return_exceptions=True)
        await self._http.close()

    async def certify(
        self, namespace: str, service_account: str, directory: Path, owner: int | None, workload: str = ""
    ) -> datetime:
        """Write the SDS files for an identity into ``directory`` and keep them fresh; when they expire.

        What an earlier agent left there is used as long as it is valid, so no control plane is needed.
        ``workload``: the name of the instance that shows the certificate, which then says who it is.

        Raises:
            WeftError: the control plane refused, or cannot be reached.
        """
        asked = {"namespace": namespace, "serviceAccount": service_account}
        if workload:
            asked["workload"] = workload
        return await self._certificates.keep(
            directory,
            SpiffeId(self._membership.trust_domain, namespace, service_account),
            lambda csr: self._sign({"csr": csr, **asked}),
            trust=self._trust,
            owner=owner,
            bearer=f"{namespace}/{workload}" if workload else "",
        )

    async def forget(self, directory: Path) -> None:
        """Stop renewing there."""
        await self._certificates.forget(directory)

    def expiry(self, directory: Path) -> datetime | None:
        """When the certificate there expires, as far as is known."""
        return self._certificates.expiry(directory)

    @property
    def trust_domain(self) -> str:
        """Of this mesh."""
        return self._membership.trust_domain

    @property
    def trust(self) -> Trust:
        """What peers are verified by now."""
        return self._membership.credential.trust

    def on_trust(self, call: Callable[[Trust], None]) -> None:
        """Call back with what peers are verified by from then on."""
        self._trust_calls.append(call)

    def now(self) -> datetime:
        """The time by which certificates are judged (UTC)."""
        return self._clock()

    async def hold(self, name: str, identity: SpiffeId, deliver: Callable[[Credential], None]) -> Credential:
        """A credential for an application, in memory and kept fresh: ``deliver`` is given each further one.

        ``name``: the instance's, ``namespace/name``.

        Raises:
            WeftError: the control plane refused, or cannot be reached.
        """
        asked = {
            "namespace": identity.namespace,
            "serviceAccount": identity.service_account,
            "workload": name.partition("/")[2],
        }
        return await self._certificates.hold(
            name, identity, lambda csr: self._sign({"csr": csr, **asked}), deliver
        )

    async def release(self, name: str) -> None:
        """Renew what is held under this name no more."""
        await self._certificates.forget(name)

    async def sign_jwt(self, identity: SpiffeId, audience: tuple[str, ...]) -> tuple[str, datetime]:
        """A new JWT-SVID, and when it expires.

        Raises:
            WeftError: the control plane refused, or cannot be reached.
        """
        asked = {
            "namespace": identity.namespace,
            "serviceAccount": identity.service_account,
            "audience": list(audience),
        }
        answer = await self._call("POST", "/weft/v1/jwts", asked)
        try:
            return str(answer["token"]), datetime.fromisoformat(answer["notAfter"])
        except (KeyError, TypeError, ValueError) as error:
            raise WeftError(
                "the control plane's answer holds no token", hint="compare the versions"
            ) from error

    async def may_scrape(self, shown: Mapping[str, str]) -> bool:
        """Whether who shows this token or certificate may see the series of this node.

        Raises:
            WeftError: the control plane cannot be reached.
        """
        answer = await self._call("POST", "/weft/v1/scrapes", dict(shown))
        return answer.get("allowed") is True

    async def read_jwks(self) -> dict[str, dict[str, Any]]:
        """The keys (JWK sets) that JWT-SVIDs are verified with, by trust domain: this mesh's, and others'.

        Raises:
            WeftError: the control plane cannot be reached.
        """
        own = await self._call("GET", "/weft/v1/jwks")
        others = (await self._call("GET", "/weft/v1/jwks/federated")).get("trustDomains") or {}
        return {**others, self.trust_domain: dict(own)}

    async def register(self, instance: Mapping[str, Any]) -> ProxyStart:
        """Make the instance known and hold its lease, over reconnects too; how its proxy is to be started.

        Without a session it returns at once: the instance is told when the next one begins.

        Raises:
            WeftError: refused, with the control plane's reason.
        """
        wanted = self._registrations.want(Instance.parse(instance))
        if not self.connected:
            return ProxyStart()
        answer = self._answers.setdefault(wanted.id, asyncio.get_running_loop().create_future())
        await self._send({"type": "register", **wanted.to_dict()})
        try:
            async with asyncio.timeout(_ANSWER_S):
                return await asyncio.shield(answer)
        except TimeoutError:
            log.warning("no answer to the registration of %s yet", wanted.id)
            return ProxyStart()
        except Denied:
            self._registrations.forget(wanted.id)
            raise
        finally:
            self._answers.pop(wanted.id, None)

    async def update(self, instance_id: str, *, ready: bool, message: str = "") -> None:
        """Say whether it may get traffic. Never fails: the last state is said again at a reconnect."""
        if self._registrations.update(instance_id, ready=ready, message=message):
            await self._send({"type": "update", "id": instance_id, "ready": ready, "message": message})

    async def deregister(self, instance_id: str, *, patience_s: float) -> bool:
        """Take it out of its peers' endpoints; True when all have acknowledged that within ``patience_s``.

        With a patience of 0 it is forgotten at once; until then its own sidecar keeps its configuration.
        """
        if patience_s <= 0:
            self._certificates.disregard(instance_id)
            if self._registrations.forget(instance_id):
                await self._send({"type": "deregister", "id": instance_id})
            return False
        if not self._registrations.drain(instance_id) or not self.connected:
            return False
        drained = self._drains.setdefault(instance_id, asyncio.get_running_loop().create_future())
        await self._send({"type": "update", "id": instance_id, "ready": False, "draining": True})
        try:
            async with asyncio.timeout(patience_s):
                return await asyncio.shield(drained)
        except TimeoutError:
            return False
        finally:
            self._drains.pop(instance_id, None)

    async def _call(self, method: str, path: str, body: Message | None = None) -> Message:
        self._membership.check(self._clock())
        member = self._membership
        url = f"{member.api}{path}"
        try:
            answer = await call(self._http, method, url, self._context, body)
        except WeftError as error:
            raise await reason(self._http, member.api, member.credential.bundle, error) from error
        if not isinstance(answer, dict):
            raise WeftError(f"{url} answers as no control plane does", hint="compare the versions")
        return answer

    async def _sign(self, asked: Message) -> Signed:
        return Signed.parse(await self._call("POST", "/weft/v1/certificates", asked))

    def _all_keepers(self) -> tuple[Keeper, ...]:
        return self._keeper, *self._certificates.keepers()

    def _make_context(self) -> ssl.SSLContext:
        mine = self._membership.credential
        return trusting_context(mine.bundle, key=mine.key, certificate=mine.certificate)

    def _renewed(self, credential: Credential) -> None:
        self._membership = self._membership.renewed(credential)
        self._context = self._make_context()
        self._membership.save(self._state)
        self._loading.wake()
        for told in self._trust_calls:
            told(credential.trust)

    async def _hold(self) -> None:
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await self._connect()
                # One that ends at once is no success: another agent may fight for this node's name.
                failures = 0 if loop.time() - began > _PAUSE_MAX_S else failures + 1
            except WeftError as error:
                failures += 1
                if self.error is None or self.error.message != error.message:
                    hint = f" ({error.hint})" if isinstance(error, Disowned) else ""
                    log.warning("no session with the control plane: %s; traffic goes on%s", error, hint)
                self.error = error
            # Several tries a lease: within one, nobody is taken for gone.
            pause = min(_PAUSE_FIRST_S * 2.0 ** min(failures, 16), _PAUSE_MAX_S, self._lease_s / 4)
            await asyncio.sleep(random.uniform(0.5, 1.0) * pause)

    async def _connect(self) -> None:
        """One session, from its hello to its end.

        Raises:
            WeftError: there was none.
        """
        member = self._membership
        member.check(self._clock())
        url = f"{member.api}/weft/v1/nodes/{member.node}/session"
        try:
            # A network that swallows packets must not hold the next try up once it is whole again.
            async with asyncio.timeout(_CONNECT_S):
                socket = await self._http.ws_connect(
                    url,
                    ssl=self._context,
                    server_hostname=CONTROL_PLANE_HOST,
                    max_msg_size=_MESSAGE_MAX,
                    timeout=aiohttp.ClientWSTimeout(ws_close=1),
                )
        except aiohttp.WSServerHandshakeError as error:
            raise Denied(
                f"the control plane refuses node {member.node!r} ({error.status})",
                status=error.status,
                hint=f"was it removed? join again: weft token create --node {member.node}",
            ) from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            why = explain(error, member.api)
            raise await reason(self._http, member.api, member.credential.bundle, why) from error
        beside = [
            asyncio.create_task(self._ping(socket), name="heartbeat"),
            asyncio.create_task(self._tell_loaded(), name="loaded"),
        ]
        try:
            self._socket = socket
            hello = {"type": "hello", "node": member.node, **self._about}
            gone = sorted(self._registrations.gone())
            await self._send({**hello, "workloads": self._registrations.all(), "gone": gone})
            async for message in socket:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    break
                self._heard = asyncio.get_running_loop().time()
                self._handle(json.loads(message.data))
            log.info("the session with %s has ended (%s)", member.api, socket.close_code)
        except (aiohttp.ClientError, OSError) as error:
            raise explain(error, member.api) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise WeftError(
                f"{member.api} sends what this node cannot read: {error!r}", hint="compare the versions"
            ) from error
        finally:
            self._socket, self._told = None, frozenset()
            self._connected.clear()
            self._registrations.lost()
            for drained in self._drains.values():
                if not drained.done():
                    drained.set_result(False)
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            with contextlib.suppress(aiohttp.ClientError, OSError):
                await socket.close()

    async def _ping(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Three heartbeats a lease; a control plane that is silent for a lease is gone."""
        loop = asyncio.get_running_loop()
        self._heard = loop.time()
        # The first answer says how long a lease is.
        await self.wait_connected(self._lease_s)
        while loop.time() - self._heard < self._lease_s:
            await asyncio.sleep(self._lease_s / 3)
            # Messages are handled in order: the answer to this one covers all that was said before.
            self._told = self._registrations.gone()
            await self._send({"type": "ping"})
        log.warning("the control plane has said nothing for %g s", self._lease_s)
        await socket.close()

    async def _tell_loaded(self) -> None:
        await self._connected.wait()
        await self._loading.run()

    async def _send(self, message: Message) -> None:
        """Send if there is a session; else the next hello says it all."""
        socket = self._socket
        if socket is not None and not socket.closed:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                await socket.send_str(json.dumps(message, separators=(",", ":")))

    def _handle(self, message: Message) -> None:
        about = str(message.get("id") or "")
        match message.get("type"):
            case "welcome":
                self._lease_s = float(message["lease"])
                self._domain = str(message["domain"])
                self._xds = str(message.get("xds") or self._xds)
                self._telemetry_port = int(message.get("telemetryPort") or self._telemetry_port)
                self.error = None
                self._connected.set()
                log.info("session with the control plane at %s", self._membership.api)
                self._certificates.hurry()
            case "registered":
                self._registrations.confirm(about)
                self._loading.wake()
                if card := str(message.get("card") or ""):
                    self._certificates.describe(about, card)
                if (answer := self._answers.get(about)) and not answer.done():
                    answer.set_result(ProxyStart.parse(message.get("start")))
            case "refused":
                self._refused(about, str(message.get("message")), str(message.get("hint") or ""))
            case "drained":
                if (drained := self._drains.get(about)) and not drained.done():
                    drained.set_result(message.get("complete") is not False)
            case "pong":
                self._registrations.heard(self._told)
                self._told = frozenset()
            case "names":
                self._names.hear(message)
            case "admin":
                self._beside(reply_to(message, self._ask, self._send), "admin")
            case "tap":
                self._beside(hold(message, self._taps, self._send), "tap")
            case "usage":
                self._beside(reply_usage(message, self._look, self._send), "usage")
            case "series":
                self._beside(reply_series(message, self._show, self._send), "series")
            case "bundle":
                self._trust = Trust.parse(message)
                # For the node itself, then for each of its Envoys.
                trust_all(self._trust, self._all_keepers())
                self._loading.wake()

    def _beside(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._inquiries.add(task)
        task.add_done_callback(self._inquiries.discard)

    def _refused(self, instance_id: str, reason: str, hint: str) -> None:
        self._registrations.refuse(instance_id, reason)
        if (drained := self._drains.get(instance_id)) and not drained.done():
            drained.set_result(False)
        if (answer := self._answers.get(instance_id)) and not answer.done():
            answer.set_exception(Denied(reason, status=409, hint=hint))
        else:
            log.warning("the control plane refuses %s: %s", instance_id, reason)
