"""The command line. Commands import what they need when they run, so that `unfooled --help` answers without torch."""

from __future__ import annotations

import sys
import traceback
from typing import Any

USAGE = 64
INTERNAL = 70
INTERRUPTED = 130


def main() -> None:
    """The entry point: run a command; end an error in one line and a status of 64 or above."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit status."""
    import typer

    from ..errors import UnfooledError
    from . import completion
    from .app import app

    try:
        completion.check(arguments)
        status = typer.main.get_command(app).main(arguments, prog_name="unfooled", standalone_mode=False)
        return _interrupted() if status == INTERRUPTED else int(status or 0)  # Typer turns an interrupt into 130
    except UnfooledError as error:
        return _fail(str(error), error.exit_status)
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except BrokenPipeError:
        return 0
    except Exception as error:
        if hasattr(error, "format_message"):  # a usage error of Click, or of the copy of it that Typer carries
            return _usage(error)
        traceback.print_exc()
        return _fail(
            f"internal error, please report it with the lines above: {type(error).__name__}: {error}", INTERNAL
        )


def _usage(error: Any) -> int:
    """What was wrong in the words, in one line; where there were none, the help that Typer gives."""
    message = str(error.format_message()).strip()
    if not message or "\n" in message:  # no command was given: the help, which Typer may have printed itself
        print(message, file=sys.stderr, end="\n" if message else "")  # noqa: T201
        return USAGE
    command = error.ctx.command_path if getattr(error, "ctx", None) else "unfooled"
    return _fail(f"{message.rstrip('.?')}{'?' if message.endswith('?') else '.'} See '{command} --help'.", USAGE)


def _interrupted() -> int:
    return _fail("interrupted; what was finished is on disk", INTERRUPTED)


def _fail(message: str, status: int) -> int:
    print(f"unfooled: {message}", file=sys.stderr)  # noqa: T201
    return status
