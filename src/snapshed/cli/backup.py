"""`snapshed backup`, `restore` and `recover`: a copy of the embedded database, the way back to it, and catching up with the
store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from snapshed import logs
from snapshed.cli.operate import Data, Json, installation
from snapshed.cli.rebuild import progress, show_caught_up
from snapshed.cli.terminal import Output, sized
from snapshed.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("backup")(backup)
    app.command("restore")(restore)
    app.command("recover")(recover)


def backup(
    file: Annotated[Path, typer.Argument(help="Where to; it appears when it is whole.")],
    data: Data = None,
) -> None:
    """Back up the embedded database into a file, beside a running service."""
    from snapshed.work import backup as work

    out = Output()
    with installation(data) as resources:
        work.write(resources, file)
    out.say(f"{file}: {sized(file.stat().st_size)}. It holds private keys; keep it as safe as the database.")


def restore(
    file: Annotated[Path, typer.Argument(help="A file that `snapshed backup` has written.")],
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Restore the embedded database from a backup, and let it catch up with the store."""
    from snapshed.work import backup as work

    logs.configure()
    out = Output(as_json=as_json)
    settings = Settings.from_env(os.environ, data=data)
    work.put_back(settings, file)
    out.say(
        "The backup is in place; the database before is kept as snapshed_before_restore. Catching up with the store."
    )
    _catch_up(out, settings)


def recover(data: Data = None, as_json: Json = False) -> None:
    """Let a database that was restored from a backup catch up with the store."""
    logs.configure()
    _catch_up(Output(as_json=as_json), Settings.from_env(os.environ, data=data))


def _catch_up(out: Output, settings: Settings) -> None:
    from snapshed.resources import opened
    from snapshed.work import deletion, recovery

    with opened(settings, connections=4, matched=recovery.behind) as resources, progress() as tell:
        show_caught_up(out, recovery.catch_up(resources, tell, deletion.withdraw))
