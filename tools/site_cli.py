"""The page of the command line, from the commands themselves."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import typer

from unfooled import errors
from unfooled.cli import INTERRUPTED
from unfooled.cli.app import app

HEAD = """# Command line

Made by `python tools/site_pages.py` from the commands themselves; `unfooled COMMAND --help` says the same.
"""

STATUSES = """## Exit statuses

A command that failed says why in one line, which begins with `unfooled:`, on standard error.

| status | meaning |
| --- | --- |
| 0 | done; of `evaluate --assert`, that every assertion holds so far |
| 1 | an assertion fails; of `verify`, an example of the run does not hold; of `doctor`, something would make a number invalid |
| 2 | `evaluate --assert`: undecided, more images would tell |
| 3 | `evaluate --assert`: trust is invalid, so there is no answer |
"""


def page() -> str:
    """The whole page."""
    group = typer.main.get_command(app)
    commands = {name: group.commands[name] for name in group.commands}  # type: ignore[attr-defined]
    rows = [f"| [`{name}`](#{_anchor(name)}) | {_first(command)} |" for name, command in commands.items()]
    parts = [
        HEAD,
        "\n".join(["| command | what it does |", "| --- | --- |", *rows]) + "\n",
        f"## Every command\n\n{_table('option', _options(group))}",
        *(_section(name, command) for name, command in commands.items()),
        STATUSES + "".join(_statuses()),
    ]
    return "\n".join(parts)


def _anchor(name: str) -> str:
    return f"unfooled-{name}"


def _section(name: str, command: Any) -> str:
    """One command: what it does, how it is called, its arguments and options."""
    words = f"unfooled {name}"
    context = command.make_context(words, [], resilient_parsing=True)
    usage = " ".join([words, *map(_plain, command.collect_usage_pieces(context))])
    arguments = [(_called(p, context), _told(p)) for p in command.params if p.param_type_name == "argument"]
    told = "\n\n".join(_markdown(" ".join(block.split())) for block in _help(command).split("\n\n"))
    parts = [f"## `{words}`", told, f"```\n{usage}\n```"]
    if arguments:
        parts.append(_table("argument", arguments).rstrip("\n"))
    own = [(name, about) for name, about in _options(command) if "--help" not in name]
    parts.append(_table("option", own).rstrip("\n"))
    return "\n\n".join(parts) + "\n"


def _options(command: Any) -> list[tuple[str, str]]:
    context = command.make_context("unfooled", [], resilient_parsing=True)
    shown = [p for p in command.get_params(context) if p.param_type_name == "option" and not p.hidden]
    return [(f"`{_spelt(p, context)}`", _told(p)) for p in shown]


def _called(argument: Any, context: Any) -> str:
    return f"`{_plain(' '.join(argument.get_usage_pieces(context))).strip('[]')}`"


def _plain(piece: str) -> str:
    """`RUN`, where usage writes `{RUN}` for what must be given."""
    return piece.strip("{}").upper() if piece.startswith("{") else piece


def _spelt(option: Any, context: Any) -> str:
    """`--batch-size <int>`, `--browser / --no-browser`, as help spells it."""
    return re.sub(r"<(?:list\[)?(\w+)(?:\]| range)?>", r"<\1>", option.get_help_record(context)[0])


def _told(parameter: Any) -> str:
    """What it does, and its default where that is a value."""
    default = parameter.default
    said = _markdown(" ".join((parameter.help or "").split()))
    plain = isinstance(default, str | int | float) and not isinstance(default, bool)
    more = " Repeatable." if getattr(parameter, "multiple", False) and "epeatable" not in said else ""
    return f"{said}{more}" + (f" Default: `{default}`." if plain and str(default) else "")


def _table(kind: str, rows: list[tuple[str, str]]) -> str:
    cells = [(name.replace("|", " or "), words.replace("|", "\\|")) for name, words in rows]
    return "\n".join([f"| {kind} | what it is |", "| --- | --- |", *(f"| {a} | {b} |" for a, b in cells)]) + "\n"


def _help(command: Any) -> str:
    return inspect.cleandoc(command.help or "")


def _first(command: Any) -> str:
    return _markdown(" ".join(_help(command).split("\n\n")[0].split()))


def _markdown(text: str) -> str:
    """Rich's marks as Markdown's; a name in capitals is left as it is."""
    text = re.sub(r"\[(?:b|bold)\](.*?)\[/(?:b|bold)?\]", r"`\1`", text)
    return text.replace("*", "\\*").replace("<", "&lt;")


def _statuses() -> Iterator[str]:
    """The statuses of errors, from their classes."""
    found: dict[int, list[Any]] = {}
    for kind in vars(errors).values():
        if inspect.isclass(kind) and issubclass(kind, errors.UnfooledError) and kind is not errors.UnfooledError:
            found.setdefault(kind.exit_status, []).append(kind)
    for status, kinds in sorted(found.items()):
        said = "; ".join(_lowered(kind.__doc__.strip().splitlines()[0].rstrip(".")) for kind in kinds)
        yield f"| {status} | {said} (`{'`, `'.join(kind.__name__ for kind in kinds)}`) |\n"
    yield f"| {INTERRUPTED} | interrupted; what was finished is on disk |\n"


def _lowered(words: str) -> str:
    return words[0].lower() + words[1:]
