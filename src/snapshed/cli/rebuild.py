"""`snapshed rebuild`: the database is lost, and made anew from the store alone."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from snapshed import logs
from snapshed.cli.operate import Data, Json
from snapshed.cli.terminal import Output, counted, sized
from snapshed.domain.recovery import LeftOut, Plan, ToldManifest
from snapshed.settings import Settings

if TYPE_CHECKING:
    from snapshed.resources import Resources
    from snapshed.work.recovery import Recovered

_PLAIN_SECONDS = 5.0
_MOST_MISSING = 3
"""How many missing digests a line names; the JSON document names all."""


def register(app: typer.Typer) -> None:
    """Add the `rebuild` command."""
    app.command("rebuild")(rebuild)


def rebuild(
    data: Data = None,
    dead: Annotated[
        bool,
        typer.Option(
            "--old-processes-are-dead",
            help="Do not wait SNAPSHED_PUT_LIMIT: no server or worker of the lost database runs any more.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would come back and what would not.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a lost database anew from the store's manifests and journal."""
    from snapshed.resources import opened
    from snapshed.work import access, deletion, recovery

    logs.configure()
    out = Output(as_json=as_json)
    settings = Settings.from_env(os.environ, data=data)
    with opened(settings, connections=4, matched=recovery.lost) as resources, progress() as tell:
        if dry_run:
            _show_plan(out, recovery.foresee(resources, tell).plan)
            return
        wait = _no_wait if dead else _waiting(out)
        done = recovery.rebuild(resources, wait, tell, deletion.withdraw)
        address = settings.url or "http://127.0.0.1:8400"
        once = access.let_in_again(resources, address)
        _show(out, resources, done, f"{address}{once}" if once else None)


def _no_wait(limit: timedelta) -> None:
    del limit


def _waiting(out: Output) -> Callable[[timedelta], None]:
    def wait(limit: timedelta) -> None:
        out.say(
            f"Waiting {limit.total_seconds():.0f} seconds, until nothing that was sent before can still arrive "
            "(--old-processes-are-dead skips this)."
        )
        threading.Event().wait(limit.total_seconds())

    return wait


@contextmanager
def progress() -> Generator[Callable[[str, int], None]]:
    """A line on standard error now and then, if it takes long."""
    told_at = time.monotonic()

    def tell(what: str, done: int) -> None:
        nonlocal told_at
        if time.monotonic() - told_at > _PLAIN_SECONDS:
            told_at = time.monotonic()
            sys.stderr.write(f"{done:,} {what}\n")

    yield tell


# --- What it says ---------------------------------------------------------------------------------------------------


def _told(one: ToldManifest, numbers: dict[str, int]) -> dict[str, object]:
    return {
        "artifact_id": str(one.artifact_id),
        "kind": one.kind,
        "number": numbers.get(str(one.artifact_id)),
        "project_id": one.stored.project_id,
        "created_at": one.created_at.isoformat(),
        "key": one.stored.key,
    }


def _own_number(one: ToldManifest) -> dict[str, int]:
    return {str(one.artifact_id): one.number} if one.number else {}


def _lacking(item: LeftOut) -> dict[str, object]:
    return _told(item.manifest, _own_number(item.manifest)) | {"missing": list(item.missing)}


def _show_plan(out: Output, plan: Plan) -> None:
    numbers = {str(artifact): number for artifact, number in plan.numbers.items()}
    if out.as_json:
        out.document(
            {
                "comes_back": [_told(one, numbers) for one in plan.chosen],
                "left_out": [_lacking(item) for item in plan.left_out],
                "unconfirmed": [_told(one, numbers) for one in plan.unconfirmed],
            }
        )
        return
    out.say(f"{counted(len(plan.chosen), 'snapshot or build')} would come back. Nothing was changed.")
    _say_left_out(out, plan.left_out)
    _say_unconfirmed(out, plan.unconfirmed)


def _document(done: Recovered) -> dict[str, object]:
    return {
        "epoch": done.epoch,
        "snapshots": done.snapshots,
        "builds": done.builds,
        "comparisons": done.comparisons,
        "left_out": [_lacking(item) for item in done.left_out],
        "unconfirmed": [_told(one, _own_number(one)) for one in done.unconfirmed],
        "reopened": [str(deletion) for deletion in done.reopened],
        "deleted_again": [str(deletion) for deletion in done.deleted_again],
        "lost": [
            {"key": one.key, "kind": one.kind, "snapshots": [str(number) for number in one.snapshots]}
            for one in done.damages
        ],
        "ended_uploads": done.ended_sessions,
        "removed": {kind: {"objects": count, "bytes": size} for kind, (count, size) in done.removed.items()},
        "unreadable": [{"key": key, "problem": problem} for key, problem in done.unreadable.items()],
        "foreign": list(done.foreign),
        "renamed_projects": [f"{one.org_slug}/{one.slug}" for one in done.made_up],
    }


def _show(out: Output, resources: Resources, done: Recovered, address: str | None) -> None:
    token = resources.settings.data / "admin-token"
    if out.as_json:
        out.document(_document(done) | {"admin_token": str(token) if address else None})
        return
    _say_done(out, done)
    out.say("Lost with the database: tokens, keys, approvals, and the keys of general objects.")
    out.say("No rule deletes anything until somebody confirms what came back.")
    if address:
        out.say(f"A new admin token is in {token}. Once it is served, sign in once at {address}")


def show_caught_up(out: Output, done: Recovered) -> None:
    """What came of catching up."""
    if out.as_json:
        out.document(_document(done))
        return
    _say_done(out, done)
    if done.deleted_again:
        named = ", ".join(str(deletion) for deletion in done.deleted_again)
        out.say(f"Deleted again what had been deleted since the backup: {named}")
    for one in done.damages:
        numbers = ", ".join(str(number) for number in one.snapshots)
        suffering = f", named by {numbers}" if numbers else ""
        out.say(f"Lost: {one.key} ({one.kind}{suffering}). An upload of the same bytes heals an image.")
    if done.ended_sessions:
        out.say(f"Ended: {counted(done.ended_sessions, 'upload')} that the backup had under way.")
    out.say(
        "Forgotten since the backup: approvals, tokens added and revoked (`snapshed token list`), and general objects stored."
    )
    out.say("No rule deletes anything until somebody confirms what came back.")


def _say_done(out: Output, done: Recovered) -> None:
    out.say(
        f"Brought back: {counted(done.snapshots, 'snapshot')}, {counted(done.builds, 'build')}, "
        f"{counted(done.comparisons, 'comparison')}. This is epoch {done.epoch}."
    )
    _say_left_out(out, done.left_out)
    _say_unconfirmed(out, done.unconfirmed)
    if done.reopened:
        named = ", ".join(str(deletion) for deletion in done.reopened)
        out.say(f"{counted(len(done.reopened), 'deletion')} had not finished, and will: {named}")
    for kind, (count, size) in sorted(done.removed.items()):
        out.say(f"No manifest names {counted(count, kind)} ({sized(size)}): to be removed, with a receipt.")
    for key, problem in done.unreadable.items():
        out.warn(f"{key}: {problem}.")
    for key in done.foreign:
        out.warn(f"{key}: its name is none of ours, and it was left alone.")
    for one in done.made_up:
        out.warn(f"The name of project {one.project_id} is lost; it is {one.org_slug}/{one.slug} now.")


def _say_left_out(out: Output, left_out: tuple[LeftOut, ...]) -> None:
    for item in left_out:
        one = item.manifest
        named = ", ".join(item.missing[:_MOST_MISSING])
        more = len(item.missing) - _MOST_MISSING
        number = f" {one.number}" if one.number else ""
        why = (
            "It is held, so what is left of it is kept: `snapshed reconcile` names it."
            if one.is_held
            else "Never confirmed, or damaged; upload it again."
        )
        out.say(
            f"Left out: {one.kind}{number} of project {one.stored.project_id}, made {one.created_at.isoformat()}: the store "
            f"lacks {counted(len(item.missing), 'object')} ({named}{f' and {more:,} more' if more > 0 else ''}). {why}"
        )


def _say_unconfirmed(out: Output, unconfirmed: tuple[ToldManifest, ...]) -> None:
    for one in unconfirmed:
        number = f" {one.number}" if one.number else ""
        out.say(
            f"Perhaps never confirmed: {one.kind}{number} of project {one.stored.project_id}, made "
            f"{one.created_at.isoformat()}, shortly before the loss. It is back; delete it if nobody misses it."
        )
