"""`snapshed diff`: two folders of images compared on this machine, with the verdicts a server would give.

No server and no database take part, and nothing is written outside the folder that --out names.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from snapshed.cli import images, transfer
from snapshed.cli.images import File, Scan
from snapshed.cli.terminal import Output, counted, share
from snapshed.cli.waiting import CATEGORIES
from snapshed.domain import categorise, manifest, report, verdict
from snapshed.domain.categorise import Entry, Outcome, Pair, Plan
from snapshed.domain.report import Result
from snapshed.engine import MOST_PIXELS, DiffResult, DiffTask, Engine
from snapshed.errors import Invalid

# A manifest must name an app, and a selective one its base; between two folders neither means anything.
_ANY_APP = "diff"
_ANY_COMMIT = "0" * 40

EXIT: Mapping[verdict.Verdict, int] = {"passed": 0, "changed": 1, "failed": 2}

REASONS = {
    "exceeds_pixel_limit": "it has more pixels than are compared",
    "image_processing_failed": "it is damaged, or no PNG or JPEG",
    "timed_out": "comparing the two images took too long",
    "crashed": "the process that compared the two images ended unexpectedly",
}
"""Why an image could not be compared, where nothing more exact is known."""

Digests = tuple[str, str]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(diff)


@dataclass(frozen=True, slots=True)
class Compared:
    """Two folders and what became of every name; `masks` has a file for each pair of digests whose pixels changed."""

    base: Mapping[str, File]
    head: Mapping[str, File]
    results: tuple[Result, ...]
    masks: Mapping[Digests, Path]

    @property
    def counts(self) -> dict[str, int]:
        return report.counts(self.results)

    @property
    def verdict(self) -> verdict.Verdict:
        return verdict.verdict("done", self.counts, None)

    def mask_of(self, result: Result) -> Path | None:
        """The mask of a name, if its pixels changed."""
        return self.masks.get((result.head_digest or "", result.base_digest or ""))


def diff(
    base_dir: Annotated[Path, typer.Argument(metavar="BASE_DIR", help="Folder of images as they were.")],
    head_dir: Annotated[Path, typer.Argument(metavar="HEAD_DIR", help="Folder of images as they are now.")],
    out: Annotated[
        Path | None,
        typer.Option(help="New folder for masks, report.json and report.html; an earlier report is replaced."),
    ] = None,
    diff_threshold: Annotated[
        float | None, typer.Option(help="Share of pixels that may differ, at least 0 and less than 1.")
    ] = None,
    selective: Annotated[bool, typer.Option("--selective", help="HEAD_DIR holds only some of all images.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Compare two folders of images without a server. Exit 0: nothing that a server would ask about. 1: changes need
    review. 2: refused, or an image could not be compared."""
    # What draws the page is not needed to compare.
    from snapshed.cli import diff_report  # noqa: PLC0415

    output = Output(as_json=as_json)
    base, head = _survey(base_dir, output), _survey(head_dir, output)
    if not base.files and not head.files:
        raise Invalid(f"There are no PNG or JPEG files in {base_dir} and {head_dir}; nothing was compared.")
    plan = planned(base, head, diff_threshold=diff_threshold, selective=selective)
    with _folder_for_masks(out, (base_dir, head_dir)) as masks, Engine.on_this_machine(len(plan.pairs)) as engine:
        compared = compare(engine, base, head, plan, masks, output)
        document: dict[str, Any] = {
            "base_dir": str(base_dir),
            "head_dir": str(head_dir),
            "out": None if out is None else str(out),
            "verdict": compared.verdict,
            "left_out": [*base.left_out, *head.left_out],
            **report.body(Engine.ALGORITHM, compared.results),
        }
        for result in compared.results if out else ():
            mask = compared.mask_of(result)
            document["images"][result.name]["diff_mask_path"] = f"masks/{mask.name}" if mask else None
        if out is not None:
            diff_report.write(out, compared, document, REASONS)
    if as_json:
        output.document(document)
    else:
        _say(compared, out, output)
    raise typer.Exit(EXIT[compared.verdict])


def planned(base: Scan, head: Scan, *, diff_threshold: float | None, selective: bool) -> Plan:
    """Which image is compared with which, from the manifest an upload of the folder would send. Raises Invalid."""
    options: dict[str, Any] = {"selective": selective, "base_sha": _ANY_COMMIT}
    if diff_threshold is not None:
        options["diff_threshold"] = diff_threshold
    sent = manifest.parse(transfer.wanted(_ANY_APP, head.files, options))
    plan = categorise.plan(
        {
            image.name: Entry(image.name, image.digest, image.width, image.height, image.threshold)
            for image in sent.images
        },
        {file.name: Entry(file.name, file.digest, file.width, file.height, None) for file in base.files},
        selective=selective,
        all_names=None,
        manifest_threshold=sent.threshold,
        max_pixels=MOST_PIXELS,
    )
    files = {file.name: file for file in head.files}
    return replace(plan, outcomes=tuple(_refused(outcome, files) for outcome in plan.outcomes))


def _refused(outcome: Outcome, head: Mapping[str, File]) -> Outcome:
    """A new image that no server would take is an error here, not an addition: nobody could look at it."""
    if outcome.category != "added":
        return outcome
    file = head[outcome.name]
    if not file.width or not file.height:
        return replace(outcome, category="errored", reason="image_processing_failed")
    if file.width * file.height > MOST_PIXELS:
        return replace(outcome, category="errored", reason="exceeds_pixel_limit")
    return outcome


def compare(engine: Engine, base: Scan, head: Scan, plan: Plan, masks: Path, output: Output) -> Compared:
    """Decode every pair of the plan, each pair of digests once; masks go into the folder `masks`."""
    ours, theirs = ({file.name: file for file in scan.files} for scan in (head, base))
    first: dict[Digests, str] = {}
    for pair in plan.pairs:
        first.setdefault(_digests(pair), pair.name)
    by_name = {name: digests for digests, name in first.items()}
    tasks = (
        DiffTask(name, ours[name].path, theirs[name].path, masks / _mask_name(digests))
        for name, digests in by_name.items()
    )
    found: dict[Digests, DiffResult] = {}
    with output.progress("Comparing", len(by_name)) as advance:
        for done in engine.diff(tasks):
            found[by_name[done.name]] = done
            advance(1)
    results = [
        *(report.undecoded(outcome) for outcome in plan.outcomes),
        *(_judged(pair, found[_digests(pair)]) for pair in plan.pairs),
    ]
    return Compared(
        base=theirs,
        head=ours,
        results=tuple(sorted(results, key=lambda result: result.name)),
        masks={digests: masks / _mask_name(digests) for digests, done in found.items() if done.mask_written},
    )


def _judged(pair: Pair, found: DiffResult) -> Result:
    if found.reason is not None:
        return report.not_compared(pair, found.reason, found.detail)
    return report.decoded(pair, found, None)


def _digests(pair: Pair) -> Digests:
    return pair.head.digest, pair.base.digest


def _mask_name(digests: Digests) -> str:
    """Made of digests alone: an image's name may hold anything."""
    return f"{digests[0][:20]}-{digests[1][:20]}.png"


def _survey(folder: Path, output: Output) -> Scan:
    scan = images.survey(folder)
    for sentence in scan.left_out:
        output.warn(sentence)
    return scan


@contextmanager
def _folder_for_masks(out: Path | None, sides: Sequence[Path]) -> Generator[Path]:
    """A folder for masks: inside the report, or one that goes away. Raises Invalid."""
    if out is None:
        with tempfile.TemporaryDirectory(prefix="snapshed-diff-") as folder:
            yield Path(folder)
        return
    from snapshed.cli import diff_report  # noqa: PLC0415

    if any(out.resolve().is_relative_to(side.resolve()) for side in sides):
        raise Invalid(f"{out} lies inside a folder that is compared; name another one.")
    yield diff_report.prepare(out)


def _say(compared: Compared, out: Path | None, output: Output) -> None:
    counts = compared.counts
    for result in compared.results:
        if result.category not in ("unchanged", "skipped"):
            output.say(f"  {result.category:9} {result.name}{_remark(result)}")
    told = ", ".join(f"{counts[category]:,} {category}" for category in CATEGORIES if counts[category])
    output.say(f"{counted(counts['total'], 'image')}: {told}.")
    if out is not None:
        output.say(f"Report: {out / 'report.html'}")
    output.say(_SENTENCES[compared.verdict])


_SENTENCES: Mapping[verdict.Verdict, str] = {
    "passed": "Passed: nothing that needs a person's eye.",
    "changed": "Changed: somebody has to look.",
    "failed": "Failed: not every image could be compared.",
}


def _remark(result: Result) -> str:
    match result.category:
        case "changed":
            explained = report.sentence(result)
            return f"  {share(result.ratio or 0)} of its pixels" + (f" ({explained})" if explained else "")
        case "renamed":
            return f"  was {result.previous_name}"
        case "errored":
            return f"  {result.detail or REASONS.get(result.reason or '', result.reason)}"
        case _:
            return ""
