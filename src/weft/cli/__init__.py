"""The command line: ``weft COMMAND``. Commands are thin and imported only when they run."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Final

import click

from weft.errors import WeftError, did_you_mean

# section -> command -> (module:attribute, one line of help). The help stands here so that
# `weft --help` imports no command.
SECTIONS: Final[dict[str, dict[str, tuple[str, str]]]] = {
    "Run a mesh": {
        "up": ("weft.cli.up:up", "Run a whole mesh from files, in the foreground"),
        "demo": ("weft.cli.demo:demo", "Run the shop in a mesh, with load"),
        "run": ("weft.cli.run:run", "Prefix a command, and it is in the mesh"),
        "control-plane": ("weft.cli.control_plane:control_plane", "Configure and certify every proxy"),
        "node": ("weft.cli.node:node", "Supervise this host's sidecars"),
        "gateway": ("weft.cli.gateway:gateway", "Run an Envoy at the edge"),
    },
    "Configure it": {
        "apply": ("weft.cli.apply:apply", "Create or change resources from files"),
        "get": ("weft.cli.get:get", "List resources"),
        "delete": ("weft.cli.delete:delete", "Delete resources"),
        "diff": ("weft.cli.diff:diff", "What apply would change"),
        "validate": ("weft.cli.validate:validate", "Check files without a mesh"),
        "token": ("weft.cli.token:token", "Join tokens for nodes"),
        "user": ("weft.cli.user:user", "Who else may use the API"),
        "nodes": ("weft.cli.hosts:nodes", "Hosts of the mesh: list, remove"),
        "ca": ("weft.cli.ca:ca", "Roots and certificates: replace, revoke, list"),
    },
    "Watch its traffic": {
        "stat": ("weft.cli.stat:stat", "How services and workloads do: rate, success, latency"),
        "top": ("weft.cli.top:top", "Which paths are called most, live"),
        "tap": ("weft.cli.tap:tap", "Requests as they happen"),
        "edges": ("weft.cli.edges:edges", "Who calls whom, with which identity"),
        "trace": ("weft.cli.trace:trace", "Traces, and where their time went"),
        "compare": ("weft.cli.compare:compare", "Is one version better, or is it chance?"),
        "graph": ("weft.cli.graph:graph", "Which services depend on which"),
    },
    "Look into it": {
        "ps": ("weft.cli.ps:ps", "Workloads of this host"),
        "logs": ("weft.cli.logs:logs", "Output of a workload or of its sidecar"),
        "proxy": ("weft.cli.proxy:proxy", "What each proxy runs: status, config, log"),
        "dashboard": ("weft.cli.dashboard:dashboard", "Traffic, configuration, security in the browser"),
        "explain": ("weft.cli.explain:explain", "Where a request goes, and which line decided it"),
        "policy": ("weft.cli.policy:policy", "Policies with evidence: replay, suggest, unused"),
        "describe": ("weft.cli.describe:describe", "What applies to a service or workload, and why"),
        "xds": ("weft.cli.xds:xds", "The configuration that a proxy would get"),
        "status": ("weft.cli.status:status", "What would become of resources, and why"),
        "analyze": ("weft.cli.analyze:analyze", "What will not work, in files or in the mesh"),
        "check": ("weft.cli.check:check", "Is this host ready, is the mesh well?"),
        "call": ("weft.cli.call:call", "Send a request as a workload would"),
        "echo": ("weft.cli.echo:echo", "A test backend that answers what it was asked"),
    },
    "Keep house": {
        "audit": ("weft.cli.audit:audit", "Who did what, and what was refused"),
        "clean": ("weft.cli.clean:clean", "Remove what a crash left behind"),
        "completion": ("weft.cli.completion:completion", "Completion script for a shell"),
        "version": ("weft.cli.version:version", "Versions of weft, Envoy and Python"),
    },
}

# What people type who know istioctl.
_ELSEWHERE: Final = {
    "proxy-status": "weft proxy status",
    "proxy-config": "weft proxy config",
    "pc": "weft proxy config",
    "install": "weft up",
}


class Commands(click.Group):
    """Looks commands up in ``SECTIONS`` and imports the one that is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the help."""
        return [name for rows in SECTIONS.values() for name in rows]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, or None for an unknown name."""
        for rows in SECTIONS.values():
            if cmd_name in rows:
                module, _, attribute = rows[cmd_name][0].partition(":")
                command = getattr(importlib.import_module(module), attribute)
                if not isinstance(command, click.Command):
                    raise TypeError(f"{module}:{attribute} is no command")
                return command
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click, with a suggestion for a mistyped name."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            name = args[0] if args else ""
            known = _ELSEWHERE.get(name)
            hint = f"here it is {known}" if known else did_you_mean(name, self.list_commands(ctx))
            if not hint:
                raise
            raise click.UsageError(f"{error.message.rstrip('.')}: {hint}", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Commands by section."""
        for title, rows in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, text) in rows.items()])


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=True,
)
@click.version_option(package_name="weft", message="%(prog)s %(version)s")
def weft() -> None:
    """A service mesh that installs with pip: real Envoys, Istio's resources, any Linux host."""


def main() -> None:
    """Run the command and turn its outcome into an exit code (0 ok, 1 refusal, 2 usage, 3 weft failed)."""
    try:
        status = weft.main(standalone_mode=False)
    except click.exceptions.Exit as done:
        status = done.exit_code
    except click.Abort:
        status = 130
    except click.ClickException as error:
        error.show()
        status = 2
    except WeftError as error:
        report(error)
        status = error.exit_code
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        # The reader went away, as `head` does: nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    except Exception as error:
        refusal = _refusal(error)
        if refusal is not None:
            report(refusal)
            sys.exit(refusal.exit_code)
        if os.environ.get("WEFT_DEBUG"):
            raise SystemExit(_traceback(error)) from error
        click.echo(f"weft itself failed: {type(error).__name__}: {error}", err=True)
        click.echo("  set WEFT_DEBUG=1 for the traceback, and please report it", err=True)
        status = 3
    sys.exit(status if isinstance(status, int) else 0)


def _refusal(error: BaseException) -> WeftError | None:
    """The WeftError that a task group failed with, when nothing else did."""
    if isinstance(error, WeftError):
        return error
    if not isinstance(error, BaseExceptionGroup):
        return None
    found = [_refusal(one) for one in error.exceptions]
    return found[0] if all(found) else None


def _traceback(error: Exception) -> int:
    import traceback

    traceback.print_exception(error)
    return 3


def report(error: WeftError) -> None:
    """Print a failure: what, each place, and the remedy."""
    red = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    click.echo(f"{click.style('error:', fg='red', bold=True) if red else 'error:'} {error.message}", err=True)
    for problem in error.problems:
        click.echo(f"  {problem}", err=True)
    if error.hint:
        click.echo(f"  {error.hint}", err=True)


if __name__ == "__main__":
    main()
