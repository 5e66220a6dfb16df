"""What became of every name of a comparison, its counts, and the report the store keeps of it. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, cast
from uuid import UUID

from snapshed.domain import categorise
from snapshed.domain.categorise import Category, Outcome, Pair, ThresholdOrigin
from snapshed.errors import Invalid

Box = tuple[int, int, int, int]
"""Left, top, width and height on the canvas of both images, in pixels."""

# | explanation   | the two files                                                        | pixels count |
# |---------------|----------------------------------------------------------------------|--------------|
# | identical     | have the same pixels                                                 | 0            |
# | imperceptible | differ by less than the eye sees                                     | 0            |
# | antialiasing  | differ only in how edges are smoothed                                | 0            |
# | moved         | show the same content further up or down, and are otherwise equal    | all changed  |
Explanation = Literal["identical", "imperceptible", "antialiasing", "moved"]


class Found(Protocol):
    """What a decoded pair turned out to be, whoever decoded it."""

    @property
    def changed_pixels(self) -> int: ...
    @property
    def total_pixels(self) -> int: ...
    @property
    def head_size(self) -> tuple[int, int]: ...
    @property
    def base_size(self) -> tuple[int, int]: ...
    @property
    def regions(self) -> Sequence[Box] | None: ...
    @property
    def fingerprint(self) -> str | None: ...
    @property
    def explanation(self) -> Explanation | None: ...
    @property
    def moved_by(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one name; sizes in pixels. `threshold` is the one in force, `threshold_from` whose it is."""

    name: str
    category: Category
    head_digest: str | None
    base_digest: str | None
    previous_name: str | None
    changed_pixels: int | None
    total_pixels: int | None
    threshold: float | None
    head_width: int | None
    head_height: int | None
    base_width: int | None
    base_height: int | None
    reason: str | None
    detail: str | None
    mask_id: UUID | None
    threshold_from: ThresholdOrigin | None = None
    regions: Sequence[Box] | None = None
    fingerprint: str | None = None
    explanation: Explanation | None = None
    moved_by: int | None = None

    @property
    def ratio(self) -> float | None:
        """The share of pixels that changed."""
        return None if self.changed_pixels is None or not self.total_pixels else self.changed_pixels / self.total_pixels

    @property
    def passing_threshold(self) -> float | None:
        """The smallest threshold with which this pair is unchanged; None if there is none, since it must be below 1."""
        return self.ratio if self.ratio is not None and self.ratio < 1 else None


def undecoded(outcome: Outcome) -> Result:
    """What is known about a name without decoding anything."""
    head_width, head_height = outcome.head_size or (None, None)
    base_width, base_height = outcome.base_size or (None, None)
    return Result(
        name=outcome.name,
        category=outcome.category,
        head_digest=outcome.head_digest,
        base_digest=outcome.base_digest,
        previous_name=outcome.previous_name,
        changed_pixels=None,
        total_pixels=None,
        threshold=None,
        head_width=head_width,
        head_height=head_height,
        base_width=base_width,
        base_height=base_height,
        reason=outcome.reason,
        detail=None,
        mask_id=None,
    )


def not_compared(pair: Pair, reason: str, detail: str | None) -> Result:
    """A pair that could not be compared, with the sizes its manifests claim."""
    return replace(
        undecoded(Outcome(pair.name, "errored", pair.head.digest, pair.base.digest)),
        threshold=pair.threshold,
        threshold_from=pair.threshold_from,
        head_width=pair.head.width,
        head_height=pair.head.height,
        base_width=pair.base.width,
        base_height=pair.base.height,
        reason=reason,
        detail=detail,
    )


def decoded(pair: Pair, found: Found, mask_id: UUID | None) -> Result:
    """What a pair is, once it has been decoded: by its own threshold, whatever was judged before."""
    return replace(
        not_compared(pair, "", None),
        reason=None,
        category=categorise.judge(found.changed_pixels, found.total_pixels, pair.threshold),
        changed_pixels=found.changed_pixels,
        total_pixels=found.total_pixels,
        head_width=found.head_size[0],
        head_height=found.head_size[1],
        base_width=found.base_size[0],
        base_height=found.base_size[1],
        mask_id=mask_id,
        regions=found.regions or None,
        fingerprint=found.fingerprint,
        explanation=found.explanation,
        moved_by=found.moved_by,
    )


def changes(results: Sequence[Result]) -> frozenset[tuple[str | None, ...]] | None:
    """What differs from the base, so that two snapshots with equal sets show people the same differences. None if there
    is nothing to approve, or something that nobody saw because it could not be compared."""
    if any(result.category == "errored" for result in results):
        return None
    return (
        frozenset(
            (result.name, result.category, result.head_digest, result.previous_name)
            for result in results
            if result.category not in ("unchanged", "skipped")
        )
        or None
    )


def counts(results: Sequence[Result]) -> dict[str, int]:
    """How many names are in each category, and in all."""
    found = dict.fromkeys(("added", "removed", "changed", "unchanged", "renamed", "skipped", "errored"), 0)
    for result in results:
        found[result.category] += 1
    return {"total": len(results), **found}


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison: its artifact and public number."""

    artifact_id: UUID
    number: int


def told_regions(result: Result) -> list[dict[str, int]]:
    """The regions of a result as every document tells them."""
    return [
        {"x": left, "y": top, "width": width, "height": height} for left, top, width, height in result.regions or ()
    ]


def sentence(result: Result) -> str | None:
    """The explanation in words, or None if there is none."""
    match result.explanation:
        case "identical":
            return "other bytes, the same pixels"
        case "imperceptible":
            return "differs by less than the eye sees"
        case "antialiasing":
            return "differs only in how edges are smoothed"
        case "moved":
            by = result.moved_by or 0
            return f"moved {'down' if by > 0 else 'up'} {abs(by)} px, otherwise equal"
        case None:
            return None


def document(head: Side, base: Side, algorithm: str, results: Sequence[Result]) -> bytes:
    """The comparison manifest: everything found, in a form people can download and a rebuild can read."""
    sides = {
        "head_artifact_id": head.number,
        "base_artifact_id": base.number,
        "head": str(head.artifact_id),
        "base": str(base.artifact_id),
    }
    return json.dumps(sides | body(algorithm, results), ensure_ascii=False, separators=(",", ":")).encode()


def body(algorithm: str, results: Sequence[Result]) -> dict[str, object]:
    """What every report holds, wherever the two sides came from."""
    return {
        "algorithm": algorithm,
        "summary": counts(results),
        "images": {result.name: told(result) for result in results},
    }


def told(result: Result) -> dict[str, object]:
    """One name of a report, as the stored report and the one on a developer's machine tell it."""
    return dict(_told(result))


def _told(result: Result) -> Iterator[tuple[str, object]]:
    yield "status", result.category
    yield "head_hash", result.head_digest
    yield "base_hash", result.base_digest
    yield "changed_pixels", result.changed_pixels
    yield "total_pixels", result.total_pixels
    yield "diff", result.ratio
    yield "threshold", result.threshold
    yield "threshold_from", result.threshold_from
    yield "passing_threshold", result.passing_threshold
    yield "regions", told_regions(result)
    yield "fingerprint", result.fingerprint
    yield "explanation", result.explanation
    yield "moved_by", result.moved_by
    yield "diff_mask_image_id", None if result.mask_id is None else str(result.mask_id)
    yield "before_width", result.base_width
    yield "before_height", result.base_height
    yield "after_width", result.head_width
    yield "after_height", result.head_height
    yield "reason", result.reason
    yield "detail", result.detail
    yield "previous_image_file_name", result.previous_name


def contradicts(
    text: bytes, head: Side, base: Side, algorithm: str, summary: Mapping[str, int], results: Sequence[Result]
) -> bool:
    """Whether a stored report says anything else than the rows. They leave out what is unchanged without a look, and no
    longer name the masks of withdrawn images."""
    try:
        said = cast("dict[str, Any]", json.loads(text))
        facts = (said["head_artifact_id"], said["base_artifact_id"], said["head"], said["base"], said["algorithm"])
        images = cast("dict[str, dict[str, Any]]", said["images"])
        if facts != (head.number, base.number, str(head.artifact_id), str(base.artifact_id), algorithm):
            return True
        if said["summary"] != summary or len(images) != summary["total"]:
            return True
        for result in results:
            image = images[result.name]
            expected = (
                told(result) if result.mask_id else told(result) | {"diff_mask_image_id": image["diff_mask_image_id"]}
            )
            # A report of an earlier release tells less, and nothing else.
            if any(field not in expected or expected[field] != value for field, value in image.items()):
                return True
    except (ValueError, KeyError, TypeError, AttributeError):
        return True
    return False


# --- Read back --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Told:
    """A stored report: its sides, and what became of every name."""

    head: Side
    base: Side
    algorithm: str
    summary: dict[str, int]
    results: tuple[Result, ...]


def read_stored(text: bytes) -> Told:
    """What a stored report tells. Raises Invalid for what is none."""
    try:
        fields = cast("dict[str, Any]", json.loads(text))
        return Told(
            head=Side(UUID(fields["head"]), int(fields["head_artifact_id"])),
            base=Side(UUID(fields["base"]), int(fields["base_artifact_id"])),
            algorithm=str(fields["algorithm"]),
            summary={name: int(number) for name, number in fields["summary"].items()},
            results=tuple(_result(name, image) for name, image in fields["images"].items()),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Invalid("This is no stored report.") from None


def _result(name: str, image: Mapping[str, Any]) -> Result:
    """One name as it was told; a report of an earlier release tells less."""
    mask = image.get("diff_mask_image_id")
    boxes = tuple((box["x"], box["y"], box["width"], box["height"]) for box in image.get("regions") or ())
    return Result(
        name=name,
        category=image["status"],
        head_digest=image["head_hash"],
        base_digest=image["base_hash"],
        previous_name=image["previous_image_file_name"],
        changed_pixels=image["changed_pixels"],
        total_pixels=image["total_pixels"],
        threshold=image["threshold"],
        head_width=image["after_width"],
        head_height=image["after_height"],
        base_width=image["before_width"],
        base_height=image["before_height"],
        reason=image["reason"],
        detail=image["detail"],
        mask_id=None if mask is None else UUID(mask),
        threshold_from=image.get("threshold_from"),
        regions=boxes or None,
        fingerprint=image.get("fingerprint"),
        explanation=image.get("explanation"),
        moved_by=image.get("moved_by"),
    )


def is_kept(result: Result) -> bool:
    """Whether the database keeps a row of it: of every decoded pair, and of every name that is not unchanged."""
    return result.category != "unchanged" or result.total_pixels is not None
