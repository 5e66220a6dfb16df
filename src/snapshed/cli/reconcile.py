"""`snapshed reconcile`: do rows, stored objects and trace rows agree, and with `--repair`, make them agree.

It may run beside a service. What a repair queues is carried out at once, by the same steps a worker takes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, cast

import typer

from snapshed.cli.operate import Data, Json, installation
from snapshed.cli.terminal import Output, counted
from snapshed.domain.disagreement import Disagreement, Level, Mended
from snapshed.errors import Unavailable

if TYPE_CHECKING:
    from snapshed.resources import Resources

_MOST_SNAPSHOTS = 10
"""How many suffering snapshots a line names; the JSON document names all."""

_PLAIN_SECONDS = 5.0
_ROUNDS = 500
"""Rounds of a worker's steps after a repair. Whatever is left then is a worker's."""


def register(app: typer.Typer) -> None:
    """Add the `reconcile` command."""
    app.command("reconcile")(reconcile)


def reconcile(
    data: Data = None,
    as_json: Json = False,
    level: Annotated[
        int, typer.Option(min=0, max=2, help="0: rows only. 1: also list the store. 2: also read every object.")
    ] = 1,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend whatever can be mended without losing anything.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --repair: however much there is to mend.")] = False,
) -> None:
    """Compare rows, stored objects and trace rows, both ways. Exit 1 if they do not agree."""
    out = Output(as_json=as_json)
    mended: list[Mended] = []
    with installation(data) as resources:
        found = _compare(resources, out, cast("Level", level))
        if repair and found:
            mended = _mend(resources, out, found, yes=yes)
            found = _compare(resources, out, cast("Level", level))
    if as_json:
        document: dict[str, object] = {"agree": not found, "disagreements": [_told(item) for item in found]}
        if repair:
            document["mended"] = [{"kind": item.kind, "key": item.key, "done": item.done} for item in mended]
        out.document(document)
    else:
        _show(out, found, mended)
    if found:
        raise typer.Exit(1)


def _compare(resources: Resources, out: Output, level: Level) -> list[Disagreement]:
    from snapshed.work import reconcile as judge

    with _progress(out) as tell:
        return list(judge.disagreements(resources, level, tell))


def _mend(resources: Resources, out: Output, found: Sequence[Disagreement], *, yes: bool) -> list[Mended]:
    from snapshed.work import repair

    mended = repair.mend(resources, found, confirmed=yes)
    with _progress(out) as tell:
        _carry_out(resources, tell)
    return mended


def _carry_out(resources: Resources, tell: Callable[[str, int], None]) -> None:
    """Take a worker's steps until none finds anything to do, so that what was queued is done without a worker too."""
    from snapshed.work import condemn, deletion, receipts, remove, traces

    steps = (
        deletion.journal_waiting,
        condemn.condemn,
        remove.remove,
        traces.remove_traces,
        traces.write_traces,
        receipts.close_finished,
    )
    done = 0
    for _ in range(_ROUNDS):
        worked = 0
        for step in steps:
            try:
                worked += step(resources)
            except Unavailable:
                continue  # told by the comparison that follows, or done by a worker later
        done += worked
        tell("steps of mending taken", done)
        if not worked:
            return


# --- What it says ---------------------------------------------------------------------------------------------------


def _told(item: Disagreement) -> dict[str, object]:
    told: dict[str, object] = {"kind": item.kind, "key": item.key, "advice": item.advice}
    if item.snapshots:
        told["snapshots"] = [str(number) for number in item.snapshots]
    return told


def _show(out: Output, found: Sequence[Disagreement], mended: Sequence[Mended]) -> None:
    if mended:
        out.findings(("", "kind", "key", "done"), [("mended", item.kind, item.key, item.done) for item in mended])
    if found:
        told = [(item.kind, item.key, item.advice + _suffering(item.snapshots)) for item in found]
        out.findings(("kind", "key", "what to do"), told)
    if mended:
        out.say(f"Mended: {counted(len(mended), 'disagreement')}.")
    if found:
        out.say(f"{'Left' if mended else 'Found'}: {counted(len(found), 'disagreement')}.")
    else:
        out.say("Rows, objects and traces agree.")


def _suffering(snapshots: Sequence[int]) -> str:
    if not snapshots:
        return ""
    named = ", ".join(str(number) for number in snapshots[:_MOST_SNAPSHOTS])
    more = len(snapshots) - _MOST_SNAPSHOTS
    return f" (concerns {named}{f' and {more:,} more' if more > 0 else ''})"


@contextmanager
def _progress(out: Output) -> Generator[Callable[[str, int], None]]:
    """A line that changes on a terminal; elsewhere a line on standard error now and then, if it takes long."""
    if out.is_watched:
        with out.waiting("Comparing") as show:
            yield lambda what, done: show(f"{done:,} {what}")
        return
    told_at = time.monotonic()

    def tell(what: str, done: int) -> None:
        nonlocal told_at
        if time.monotonic() - told_at > _PLAIN_SECONDS:
            told_at = time.monotonic()
            sys.stderr.write(f"{done:,} {what}\n")

    yield tell
