"""The command line. Commands import what they need when they run, so that `unfooled --help` answers without torch."""

from __future__ import annotations

import sys
import traceback

INTERNAL = 70
INTERRUPTED = 130


def main() -> None:
    """The entry point: run a command; end an error in one line and a status of 64 or above."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit status."""
    import click
    import typer

    from ..errors import UnfooledError
    from .app import app

    try:
        status = typer.main.get_command(app).main(arguments, prog_name="unfooled", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)  # noqa: T201
        return 64
    except click.UsageError as error:
        hint = f" See '{error.ctx.command_path} --help'." if error.ctx else ""
        return _fail(error.format_message().rstrip(".") + "." + hint, 64)
    except click.ClickException as error:
        return _fail(error.format_message(), 64)
    except UnfooledError as error:
        return _fail(str(error), error.exit_status)
    except (KeyboardInterrupt, click.exceptions.Abort):
        return _fail("interrupted; what was finished is on disk", INTERRUPTED)
    except BrokenPipeError:
        return 0
    except Exception as error:
        traceback.print_exc()
        return _fail(f"internal error, please report it with the lines above: {type(error).__name__}: {error}", INTERNAL)


def _fail(message: str, status: int) -> int:
    print(f"unfooled: {message}", file=sys.stderr)  # noqa: T201
    return status
