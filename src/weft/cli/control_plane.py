"""``weft control-plane``."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import click

from weft.errors import UsageError
from weft.names import API_PORT, MONITORING_PORT, TELEMETRY_PORT, TRUST_DOMAIN, XDS_PORT

_PEM = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command("control-plane")
@click.option(
    "--listen", default="0.0.0.0", show_default=True, metavar="ADDRESS", help="Where the ports are."
)
@click.option(
    "--advertise", multiple=True, metavar="HOST", help="Name or address that nodes dial; may be repeated."
)
@click.option(
    "--xds-port", type=int, default=XDS_PORT, show_default=True, help="Proxies; 0 takes a free one."
)
@click.option("--api-port", type=int, default=API_PORT, show_default=True, help="API and enrolment.")
@click.option(
    "--monitoring-port", type=int, default=MONITORING_PORT, show_default=True, help="Metrics, debug."
)
@click.option(
    "--telemetry-port",
    type=int,
    default=TELEMETRY_PORT,
    show_default=True,
    help="Spans and logs of proxies; 0 takes a free one.",
)
@click.option("--telemetry-disk", envvar="WEFT_TELEMETRY_DISK", default="256MiB", show_default=True,
              metavar="SIZE", help="How much telemetry may keep in files.")  # fmt: skip
@click.option("--telemetry-memory", envvar="WEFT_TELEMETRY_MEMORY", default="1GiB", show_default=True,
              metavar="SIZE", help="How much memory its process may have.")  # fmt: skip
@click.option("--telemetry-age", envvar="WEFT_TELEMETRY_AGE", default="6h", show_default=True,
              metavar="DURATION", help="How long spans and records of requests stay.")  # fmt: skip
@click.option("--mesh", default="default", show_default=True, help="Name of the mesh on this machine.")
@click.option("--runtime-dir", type=click.Path(path_type=Path), help="Sockets; /run/weft/MESH for root.")
@click.option("--state-dir", type=click.Path(path_type=Path), help="What stays; /var/lib/weft/MESH for root.")
@click.option(
    "--config", type=click.Path(path_type=Path), metavar="DIR", help="Apply and follow a directory."
)
@click.option("--ca-cert", type=_PEM, help="An authority of your own: its chain, the one that signs first.")
@click.option("--ca-key", type=_PEM, help="Its private key, P-256.")
@click.option("--ca-root", type=_PEM, help="The roots to trust; default: --ca-cert.")
@click.option(
    "--ca-dir",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Instead of these: a directory as cert-manager or Istio's cacerts fill it. Changes are followed.",
)
@click.option("--trust-domain", default=TRUST_DOMAIN, show_default=True, help="Of all identities.")
@click.option("--certificate-lifetime", default="24h", show_default=True, help="Of workload certificates.")
@click.option(
    "--lease", default="15s", show_default=True, help="How long a lost node's workloads stay known."
)
@click.option("-v", "--verbose", count=True, help="Say more; twice for everything.")
def control_plane(
    listen: str,
    advertise: tuple[str, ...],
    xds_port: int,
    api_port: int,
    monitoring_port: int,
    telemetry_port: int,
    telemetry_disk: str,
    telemetry_memory: str,
    telemetry_age: str,
    mesh: str,
    runtime_dir: Path | None,
    state_dir: Path | None,
    config: Path | None,
    ca_cert: Path | None,
    ca_key: Path | None,
    ca_root: Path | None,
    ca_dir: Path | None,
    trust_domain: str,
    certificate_lifetime: str,
    lease: str,
    verbose: int,
) -> None:
    """Configure every proxy, issue every certificate, serve the API.

    Needs no root. The API's Unix socket and a kubeconfig are made in the runtime directory.
    """
    from weft.client.locate import runtime_directories, state_directory
    from weft.control.handover import OwnAuthority
    from weft.control.options import ControlOptions
    from weft.telemetry.limits import Room
    from weft.units import parse_duration, parse_size

    if policy := os.environ.get("COMPLIANCE_POLICY"):
        # Istio's: to start without it would look as if it were in force.
        raise UsageError(
            f"COMPLIANCE_POLICY={policy} is not read from the environment",
            hint="unset it, and apply a MeshConfig with compliancePolicy: pqc",
        )
    try:
        lifetime, lease_time = parse_duration(certificate_lifetime), parse_duration(lease)
        room = Room(
            disk=parse_size(telemetry_disk),
            memory=parse_size(telemetry_memory),
            age=parse_duration(telemetry_age),
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    own = OwnAuthority(key=ca_key, chain=ca_cert, roots=ca_root or ca_cert) if ca_key and ca_cert else None
    if ca_dir is not None:
        if ca_key or ca_cert or ca_root:
            raise click.UsageError("give --ca-dir, or the files, not both")
        own = OwnAuthority(directory=ca_dir)
    if own is None and (ca_key or ca_cert or ca_root):
        raise click.UsageError("an authority of your own needs --ca-cert and --ca-key")
    options = ControlOptions(
        runtime=runtime_dir or runtime_directories(os.environ, os.getuid())[0] / mesh,
        state=state_dir or state_directory(os.environ, os.getuid()) / mesh,
        listen=listen,
        advertise=advertise,
        xds_port=xds_port,
        api_port=api_port,
        monitoring_port=monitoring_port,
        telemetry_port=telemetry_port,
        telemetry_room=room,
        trust_domain=trust_domain,
        config=config,
        certificate_lifetime=lifetime,
        lease_s=lease_time.total_seconds(),
        own_authority=own,
    )
    _run(options, verbose)


def _run(options: object, verbose: int) -> None:
    # gRPC would write lines of its own about what is raised, and said, anyway.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import uvloop

    from weft.control.app import control_plane as running
    from weft.control.options import ControlOptions
    from weft.runtime import log_to_stderr, notify_ready, stop_on_signals

    assert isinstance(options, ControlOptions)
    log_to_stderr(verbose)
    # Whatever is made here, by whatever library, is nobody else's.
    os.umask(0o077)

    async def serve() -> None:
        async with stop_on_signals() as stop, running(options, stop) as listening:
            click.echo(f"xDS   {listening.xds}")
            click.echo(f"API   {listening.api}")
            click.echo(f"API   {listening.socket} (this machine)")
            click.echo(f"kubectl --kubeconfig {listening.kubeconfig}")
            notify_ready()
            await stop.wait()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
