"""Operator commands about holds: what is held cannot be deleted by anyone or any rule."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from snapshed.cli.operate import Data, Json, installation, project_named
from snapshed.cli.terminal import printable
from snapshed.domain.receipt import moment
from snapshed.errors import Invalid

if TYPE_CHECKING:
    from snapshed.db.branch_holds import BranchHold
    from snapshed.db.holds import Hold
    from snapshed.resources import Resources

_OPERATOR = "operator"


def register(app: typer.Typer) -> None:
    """Add the `hold` commands."""
    hold = typer.Typer(help="Hold snapshots and branches, so that nobody can delete them.", no_args_is_help=True)
    hold.command("add")(add)
    hold.command("release")(release)
    hold.command("list")(listing)
    app.add_typer(hold, name="hold")


def add(
    reason: Annotated[str, typer.Option(help="Why; shown to whoever tries to delete it.")],
    snapshot: Annotated[str | None, typer.Argument(help="The snapshot's number, such as 12.")] = None,
    branch: Annotated[
        str | None, typer.Option(help="Instead of a snapshot: every one of this branch, also those yet to come.")
    ] = None,
    project: Annotated[str | None, typer.Option(help="The branch's project, if there are several.")] = None,
    until: Annotated[str | None, typer.Option(help="When it ends: an ISO time, or a length such as 90d.")] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Hold a snapshot or a branch until the hold is released or ends."""
    from snapshed.work import branch_holds, holds

    if (snapshot is None) == (branch is None):
        raise Invalid("Name either a snapshot or a --branch to hold.")
    if snapshot is not None and project is not None:
        raise Invalid("A snapshot is named by its number alone; --project goes with --branch.")
    with installation(data) as resources:
        ends_at = None if until is None else _moment(until, resources.now())
        if branch is None:
            number = _number(snapshot or "")
            placed = holds.place(resources, _everywhere(resources), number, reason, _OPERATOR, ends_at)
        else:
            within = project_named(resources, project)
            placed = branch_holds.place(resources, within, branch, reason, _OPERATOR, ends_at)
    if as_json:
        sys.stdout.write(json.dumps(_document(placed), indent=2) + "\n")
    else:
        sys.stdout.write(f"{placed.id}\n")


def release(
    what: Annotated[
        str, typer.Argument(metavar="HOLD|SNAPSHOT", help="A hold's id, or a snapshot with all its holds.")
    ],
    data: Data = None,
) -> None:
    """Release a hold, or every hold of a snapshot."""
    from snapshed.work import branch_holds, holds

    with installation(data) as resources:
        everywhere = _everywhere(resources)
        hold_id = _hold_id(what)
        if hold_id is not None and hold_id in {hold.id for hold in branch_holds.list_holds(resources, everywhere)}:
            branch = branch_holds.release(resources, everywhere, hold_id, _OPERATOR)
            sys.stdout.write(f"Branch {printable(branch)}: 1 hold is released.\n")
            return
        number = _number(what) if hold_id is None else holds.find(resources, everywhere, hold_id).number
        released = holds.release(resources, everywhere, number, hold_id)
    sys.stdout.write(f"Snapshot {number}: {released} {'hold is' if released == 1 else 'holds are'} released.\n")


def listing(data: Data = None, as_json: Json = False) -> None:
    """List every hold that stands."""
    from snapshed.db.branch_holds import BranchHold
    from snapshed.work import branch_holds, holds

    with installation(data) as resources:
        everywhere = _everywhere(resources)
        found = [*holds.list_holds(resources, everywhere), *branch_holds.list_holds(resources, everywhere)]
    if as_json:
        sys.stdout.write(json.dumps([_document(hold) for hold in found], indent=2) + "\n")
        return
    for hold in found:
        end = f"until {moment(hold.ends_at)}" if hold.ends_at else "until released"
        place = f"{hold.org_slug}/{hold.project_slug}"
        what = f"branch {printable(hold.branch)}" if isinstance(hold, BranchHold) else f"snapshot {hold.number}"
        sys.stdout.write(f"{hold.id}  {place} {what}  {end}  {printable(hold.reason)}\n")


def _everywhere(resources: Resources) -> list[int]:
    from snapshed.work import access

    return [project.id for project in access.list_projects(resources)]


def _document(hold: Hold | BranchHold) -> dict[str, Any]:
    from snapshed.db.branch_holds import BranchHold

    of_branch = isinstance(hold, BranchHold)
    return {
        "id": str(hold.id),
        "org": hold.org_slug,
        "project": hold.project_slug,
        "snapshot": None if of_branch else str(hold.number),
        "branch": hold.branch if of_branch else None,
        "reason": hold.reason,
        "placed_by": hold.placed_by,
        "placed_at": moment(hold.placed_at),
        "ends_at": moment(hold.ends_at),
    }


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Invalid(f"{printable(text[:80])!r} is no snapshot; a snapshot is a number, such as 12.")
    return int(text)


def _hold_id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _moment(text: str, now: datetime) -> datetime:
    if match := re.fullmatch(r"(\d{1,4})([hdw])", text):
        unit = {"h": "hours", "d": "days", "w": "weeks"}[match[2]]
        return now + timedelta(**{unit: int(match[1])})
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Invalid("The option --until must be an ISO time or a length of time such as 90d.") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
