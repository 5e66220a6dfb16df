"""The command line: one line of help, one sentence an error, an exit code that scripts can rely on.

Errors are turned into exit codes here and nowhere else; no command ever shows a traceback.
"""

from __future__ import annotations

import sys

import typer
import typer.exceptions

from snapshed import __version__
from snapshed.cli import backup, client, demo, diff, holds, keys, operate, rebuild, reconcile, retention, webhooks
from snapshed.errors import Broken, Refused, SnapshedError, Unavailable

USAGE = 2
UNAVAILABLE = 75
BROKEN = 70
"""EX_TEMPFAIL and EX_SOFTWARE of sysexits.h; 2 is what every shell command says of wrong usage."""

app = typer.Typer(
    help="Visual snapshots, where delete means delete.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
operate.register(app)
reconcile.register(app)
rebuild.register(app)
backup.register(app)
holds.register(app)
retention.register(app)
keys.register(app)
webhooks.register(app)
client.register(app)
diff.register(app)
demo.register(app)


@app.callback(invoke_without_command=True)
def version(
    show: bool = typer.Option(False, "--version", help="Print the version.", is_eager=True),
) -> None:
    """Visual snapshots, where delete means delete."""
    if show:
        sys.stdout.write(f"snapshed {__version__}\n")
        raise typer.Exit


def main() -> None:
    """Run one command and leave with its exit code."""
    try:
        status = app(standalone_mode=False)
    except typer.Abort:
        status = 130
    except typer.exceptions.TyperException as error:
        sys.stderr.write(f"snapshed: {error.format_message()}\n")
        status = USAGE
    except SnapshedError as error:
        sys.stderr.write(f"snapshed: {error}\n")
        status = exit_code(error)
    except BrokenPipeError:
        status = 0
    except KeyboardInterrupt:
        status = 130
    except Exception as error:  # noqa: BLE001  the last word before the shell
        sys.stderr.write(f"snapshed: internal error ({type(error).__name__}). Please report it.\n")
        status = BROKEN
    sys.exit(status if isinstance(status, int) else 0)


def exit_code(error: SnapshedError) -> int:
    """2: refused, so change the request. 75: try later. 70: a promise does not hold."""
    match error:
        case Refused():
            return USAGE
        case Unavailable():
            return UNAVAILABLE
        case Broken():
            return BROKEN
        case _:
            return BROKEN
