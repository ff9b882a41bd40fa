"""The reference page of the commands, made from the commands themselves (``make docs``)."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from weft.cli import SECTIONS, weft

_HEAD = """<!-- Made from src/weft/cli by `make docs`; do not edit. -->
# Commands

Exit codes: 0 done, 1 findings or a refusal, 2 wrong usage, 3 weft itself failed (`WEFT_DEBUG=1` shows where).
`-o json` and `-o yaml` print for programs. `weft completion bash` prints what completes names in a shell.
"""


def page() -> str:
    """All commands, by section, with their arguments and options."""
    root = click.Context(weft, info_name="weft")
    lines = [_HEAD]
    for title, rows in SECTIONS.items():
        lines.append(f"## {title}\n")
        for name in rows:
            command = weft.get_command(root, name)
            assert command is not None
            lines += _describe(command, click.Context(command, info_name=name, parent=root))
    return "\n".join(lines).rstrip("\n") + "\n"


def _paragraph(text: str) -> str:
    """Markdown of a paragraph; those that click does not wrap (``\\b``) are examples."""
    marked, rest = text.strip().partition("\n")[::2]
    return f"```\n{rest}\n```" if marked == "\b" else text.strip()


def _describe(command: click.Command, context: click.Context) -> Iterator[str]:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f"### {context.command_path}\n"
    yield f"```\n{usage}\n```\n"
    yield from (f"{_paragraph(text)}\n" for text in inspect.cleandoc(command.help or "").split("\n\n"))
    options = [
        (f"`{names}`", text.replace("|", "\\|"))
        for parameter in command.params
        if isinstance(parameter, click.Option)
        if (record := parameter.get_help_record(context)) is not None
        for names, text in [record]
    ]
    if options:
        yield "| option | |\n|---|---|"
        yield from (f"| {names.replace('|', chr(92) + '|')} | {text} |" for names, text in options)
        yield ""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            part = command.get_command(context, name)
            if part is not None:
                yield from _describe(part, click.Context(part, info_name=name, parent=context))
