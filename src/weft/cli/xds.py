"""``weft xds``: the configuration that a proxy would get, without a running mesh."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any

import click

from weft.cli.documents import read_resources, refuse_errors
from weft.cli.server import files_option
from weft.errors import UsageError
from weft.names import ProxyName

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from weft import ir
    from weft.model.resource import Resource

KINDS = ("lds", "rds", "cds", "eds", "secrets", "bootstrap")


def _labels(text: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for part in filter(None, text.split(",")):
        key, found, value = part.partition("=")
        if not found or not key:
            raise UsageError(f"{part!r} is not a label", hint="write --labels app=reviews,version=v1")
        pairs.append((key.strip(), value.strip()))
    return tuple(sorted(pairs))


def _name(text: str) -> ProxyName:
    try:
        return ProxyName.parse(text)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _identity(name: ProxyName, labels: tuple[tuple[str, str], ...], account: str) -> ir.ProxyIdentity:
    from weft import ir

    router = name.kind == "router"
    capture = ir.Capture.NONE if router else ir.Capture.REDIRECT
    return ir.ProxyIdentity(
        name=name, labels=labels, service_account=account, attachment=ir.Attachment(capture=capture)
    )


def _declared(identity: ir.ProxyIdentity, resources: Iterable[Resource]) -> ir.ProxyIdentity:
    """With the labels and the account of the Workload that it is a replica of: web-0 is one of web."""
    from weft.model.workload import Workload
    from weft.names import REPLICA

    own = identity.name
    names = (own.name, REPLICA.sub("", own.name))
    declared = {
        one.metadata.name: one
        for one in resources
        if isinstance(one, Workload) and one.metadata.namespace == own.namespace
    }
    for name in names:
        if one := declared.get(name):
            labels = {**(one.metadata.labels or {}), **dict(identity.labels)}
            account = identity.service_account
            if account == "default":
                account = one.spec.service_account or account
            return replace(identity, labels=tuple(sorted(labels.items())), service_account=account)
    return identity


def configuration(
    paths: Sequence[str],
    identity: ir.ProxyIdentity,
    namespace: str = "default",
    kinds: Sequence[str] = (),
    *,
    static: bool = False,
    controller: str = "",
) -> dict[str, Any]:
    """What ``weft xds`` prints, as JSON values; warnings go to standard error.

    ``controller``: GatewayClasses of this controller are weft's too.

    Raises:
        WeftError: when the files have errors.
    """
    from weft.cli.placeholder import placeholders
    from weft.compile.endpoints import endpoint_set
    from weft.compile.own_settings import start
    from weft.compile.proxy import compile_proxy
    from weft.compile.world import World
    from weft.emit.bootstrap import Settings, bootstrap
    from weft.emit.bundle import emit
    from weft.emit.dump import config_dump
    from weft.emit.patches.bootstrap import fragments_of
    from weft.emit.static import assignments, bundle_secrets, static_bootstrap
    from weft.ir import Discovery
    from weft.start import META, merged

    resources, problems = read_resources(paths, namespace)
    for problem in refuse_errors(problems):
        click.echo(f"{problem.severity.lower()}: {problem}", err=True)
    identity = _declared(identity, resources)
    world = World.build(resources)
    if controller:
        known = world.settings.controllers | {controller}
        world = World.build(resources, replace(world.settings, controllers=known))
    proxy, found = compile_proxy(world, identity)
    for problem in found:
        click.echo(f"{problem.severity.lower()}: {problem}", err=True)
    bundle = emit(proxy)
    endpoints = [
        endpoint_set(world, cluster.name) for cluster in proxy.clusters if cluster.discovery is Discovery.EDS
    ]
    settings = Settings(
        name=identity.name,
        metadata={
            "SERVICE_ACCOUNT": identity.service_account,
            "LABELS": dict(identity.labels),
            "INSTANCE_IPS": identity.name.address,
            "INTERCEPTION_MODE": identity.attachment.capture.value.upper(),
        },
    )
    told = start(world, identity)
    noted = {key.removeprefix(META): text for key, text in told.environment.items() if key.startswith(META)}
    settings = replace(settings, metadata={**noted, **settings.metadata})
    parts = (*told.bootstrap, *fragments_of(proxy.patches))
    if static:
        made = static_bootstrap(bundle, endpoints, settings, placeholders(*bundle_secrets(bundle)), proxy)
        return reduce(merged, parts, made)
    made = reduce(merged, parts, bootstrap(settings))
    return config_dump(bundle, assignments(endpoints, proxy), made, kinds)


@click.command()
@click.argument("paths", nargs=-1)
@files_option
@click.option(
    "--proxy",
    required=True,
    metavar="TYPE~IP~NAME.NAMESPACE",
    help="Who asks: sidecar~10.0.0.1~reviews-0.default, or router~… for a gateway.",
)
@click.option("--labels", default="", metavar="K=V,…", help="The proxy's labels, beside those in the files.")
@click.option("--service-account", default="default", show_default=True, help="Its service account.")
@click.option(
    "--type",
    "kinds",
    type=click.Choice((*KINDS, "all")),
    multiple=True,
    help="A part only; may be repeated.",
)
@click.option("--static", is_flag=True, help="One bootstrap that `envoy --mode validate -c` accepts.")
@click.option("-n", "--namespace", default="default", show_default=True, help="Of documents without one.")
@click.option("--controller-name", default="", help="Serve GatewayClasses of this controller as well.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), default="json", show_default=True)
def xds(
    paths: tuple[str, ...],
    files: tuple[str, ...],
    proxy: str,
    labels: str,
    service_account: str,
    kinds: tuple[str, ...],
    static: bool,
    namespace: str,
    controller_name: str,
    output: str,
) -> None:
    """The configuration that a proxy would get, as Envoy's /config_dump.

    PATHS are files, directories (recursively) or - for standard input. Secrets are never shown: in a
    --static bootstrap a placeholder that nobody trusts stands for each.
    """
    paths = (*files, *paths)
    if not paths:
        raise UsageError("no files are given", hint="name files or directories, or - for standard input")
    wanted = () if "all" in kinds else kinds
    identity = _identity(_name(proxy), _labels(labels), service_account)
    made = configuration(paths, identity, namespace, wanted, static=static, controller=controller_name)
    if output == "yaml":
        import yaml

        yaml.dump(made, sys.stdout, sort_keys=False, allow_unicode=True, width=110)
    else:
        click.echo(json.dumps(made, indent=2))
