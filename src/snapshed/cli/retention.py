"""Operator commands about retention: each project's rule, what a run of it would delete, and running it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snapshed.cli.operate import Data, Json, installation, project_named
from snapshed.cli.terminal import Output, counted, sized
from snapshed.domain.retention import KINDS, Decision, document
from snapshed.errors import Invalid, Refused

if TYPE_CHECKING:
    from snapshed.db.access import Project
    from snapshed.resources import Resources
    from snapshed.work.retention import Shown

_OPERATOR = "operator"
_FOR_EVER = "forever"
_MOST_ROUNDS = 10_000
_MOST_LOOKED_AT = 1000

_PROJECT_HELP = "The project, as ORG/PROJECT; not needed where there is only one."
Name = Annotated[str | None, typer.Option("--project", help=_PROJECT_HELP)]
Length = Annotated[str | None, typer.Option(help=f"Days, or {_FOR_EVER!r}.", metavar="DAYS")]


def register(app: typer.Typer) -> None:
    """Add the `retention` commands."""
    retention = typer.Typer(help="Delete old snapshots by rules.", no_args_is_help=True)
    for command in (show, set_rule, preview, run, confirm, pause):
        retention.command("set" if command is set_rule else command.__name__)(command)
    app.add_typer(retention, name="retention")


def show(project: Name = None, data: Data = None, as_json: Json = False) -> None:
    """Show a project's rule, or every project's, and what its last run did."""
    from snapshed.work import access, retention

    out = Output(as_json=as_json)
    with installation(data) as resources:
        chosen = access.list_projects(resources) if project is None else [project_named(resources, project)]
        found = [(item, retention.show(resources, item)) for item in chosen]
    if as_json:
        out.document([_told(item, shown) for item, shown in found])
        return
    header = ("project", "superseded builds", "quiet branches", "default branch", "which is", "set by", "last run")
    out.findings(header, [_line(item, shown) for item, shown in found])
    _say_if_paused(out, found[0][1].paused_for if found else None)


def set_rule(
    project: Name = None,
    superseded: Length = None,
    quiet: Length = None,
    default: Length = None,
    default_branch: Annotated[
        list[str] | None, typer.Option(help="A default branch; may be repeated. Replaces those before.")
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Set a project's rule: how long builds of pull requests are kept once superseded, branches once quiet, and builds
    of default branches. What is not given stays as it is. It is carried out at once; look at the preview first."""
    from snapshed.work import retention

    lengths = {"superseded_days": superseded, "quiet_days": quiet, "default_days": default}
    fields: dict[str, Any] = {field: _days(text) for field, text in lengths.items() if text is not None}
    if default_branch:
        fields["default_branches"] = default_branch
    if not fields:
        raise Invalid("Nothing to set; give --superseded, --quiet, --default or --default-branch.")
    out = Output(as_json=as_json)
    with installation(data) as resources:
        chosen = project_named(resources, project)
        retention.put_rule(resources, chosen, fields, _OPERATOR)
        shown = retention.show(resources, chosen)
    if as_json:
        out.document(_told(chosen, shown))
    else:
        out.say("  ".join(_line(chosen, shown)[:5]))
        _say_if_paused(out, shown.paused_for)


def preview(
    project: Name = None,
    only_deleted: Annotated[bool, typer.Option("--deleted", help="Show only what would go.")] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Show what a run would delete now, and why each kept snapshot is kept. Changes nothing."""
    from snapshed.work import retention

    out = Output(as_json=as_json)
    with installation(data) as resources:
        chosen = project_named(resources, project)
        found = retention.preview(resources, chosen)
        freed = _freed(resources, chosen, [item.number for item in found.decisions if item.deletes])
    decisions = [item for item in found.decisions if item.deletes or not only_deleted]
    if as_json:
        out.document({**document(decisions, found.paused_for), "frees_bytes": freed})
        return
    out.findings(
        ("snapshot", "app", "", "class", "until", "reason"),
        [
            (
                str(item.number),
                item.app_id,
                "goes" if item.deletes else "stays",
                KINDS[item.kind],
                "–" if item.goes_at is None else f"{item.goes_at:%Y-%m-%d}",
                item.reason,
            )
            for item in decisions
        ],
    )
    out.say(_summary(found.decisions, freed))
    _say_if_paused(out, found.paused_for)


def _freed(resources: Resources, project: Project, numbers: list[int]) -> int | None:
    """Bytes that would leave the store with these snapshots; None if they are too many to look at each object."""
    from snapshed.work import deletion

    if not numbers:
        return 0
    if len(numbers) > _MOST_LOOKED_AT:
        return None
    try:
        order = deletion.Order(project.org_id, [project], _OPERATOR, snapshots=numbers)
        return deletion.preview(resources, order)["bytes"]["waiting"]
    except Refused:
        return None  # somebody deletes or holds one of them at this moment


def run(project: Name = None, data: Data = None, as_json: Json = False) -> None:
    """Carry out a project's rule now, or every project's, to the end. A worker does so once an hour by itself."""
    from snapshed.work import access

    out = Output(as_json=as_json)
    told: list[dict[str, Any]] = []
    with installation(data) as resources:
        chosen = access.list_projects(resources) if project is None else [project_named(resources, project)]
        for item in chosen:
            deleted, failed, kept = _run_whole(resources, item, out)
            told.append({"project": f"{item.org_slug}/{item.slug}", "deleted": deleted, "failed": failed, "kept": kept})
    if as_json:
        out.document(told)
        return
    for line in told:
        lost = f", {line['failed']} could not be deleted" if line["failed"] else ""
        out.say(f"{line['project']}: {counted(line['deleted'], 'snapshot')} deleted, {line['kept']} kept{lost}.")


def _run_whole(resources: Resources, project: Project, out: Output) -> tuple[int, int, int]:
    """Run until nothing is left that goes; what cannot be deleted is tried once. Deleted, failed and kept."""
    from snapshed.work import deletion, retention

    deleted = failed = kept = 0
    for _ in range(_MOST_ROUNDS):
        ran = retention.run(resources, project, deletion.by_rule)
        deleted, failed, kept = deleted + ran.deleted, failed + ran.failed, ran.kept
        if not ran.left_over:
            break
        out.say(f"{project.org_slug}/{project.slug}: {deleted:,} deleted, {ran.left_over:,} to go")
    return deleted, failed, kept


def confirm(data: Data = None) -> None:
    """Let rules delete again after they were paused, or after a rebuild or an upgrade. Look at the preview first."""
    from snapshed.work import retention

    with installation(data) as resources:
        was_paused = retention.confirm(resources)
    Output().say("Rules delete from now on." if was_paused else "Rules deleted before, and do.")


def pause(
    reason: Annotated[str, typer.Option(help="Why; shown to whoever asks.")] = "An operator has paused them.",
    data: Data = None,
) -> None:
    """Let no rule delete anything until you confirm it."""
    from snapshed.work import retention

    if not reason.strip():
        raise Invalid("The option --reason must say why.")
    with installation(data) as resources:
        retention.pause(resources, reason.strip())
    Output().say("No rule deletes anything until `snapshed retention confirm`.")


# --- Words -----------------------------------------------------------------------------------------------------------


def _days(text: str) -> int | None:
    if text == _FOR_EVER:
        return None
    number = text.removesuffix("d")
    if not number.isascii() or not number.isdigit() or len(number) > 6:
        raise Invalid(f"{text[:40]!r} is no number of days; give one such as 90, or {_FOR_EVER!r}.")
    return int(number)


def _length(days: int | None) -> str:
    return "for ever" if days is None else counted(days, "day")


def _line(project: Project, shown: Shown) -> tuple[str, ...]:
    rule, last = shown.rule, shown.last_run
    ran = "never"
    if last is not None and last.finished_at is not None:
        ran = f"{last.finished_at:%Y-%m-%d %H:%M}: {last.deleted} deleted, {last.kept} kept"
        ran += f", {last.failed} failed" if last.failed else ""
    return (
        f"{project.org_slug}/{project.slug}",
        _length(rule.superseded_days),
        _length(rule.quiet_days),
        _length(rule.default_days),
        ", ".join(rule.default_branches),
        "default" if shown.set_by is None else shown.set_by,
        ran,
    )


def _summary(decisions: Sequence[Decision], freed: int | None) -> str:
    goes = Counter(item.kind for item in decisions if item.deletes)
    parts = ", ".join(f"{KINDS[kind]}: {goes[kind]:,}" for kind in KINDS if goes[kind])
    total = sum(goes.values())
    detail = f" ({parts}; {sized(freed)} of objects)" if parts and freed is not None else f" ({parts})" if parts else ""
    return f"{counted(total, 'snapshot')} would go{detail}; {len(decisions) - total:,} stay."


def _say_if_paused(out: Output, paused_for: str | None) -> None:
    if paused_for is not None:
        out.say(f"No rule deletes anything: {paused_for} `snapshed retention confirm` lets them.")


def _told(project: Project, shown: Shown) -> dict[str, Any]:
    return {"org": project.org_slug, "project": project.slug, **shown.document()}
