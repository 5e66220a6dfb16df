"""What became of every name of a comparison, its counts, and the report the store keeps of it. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

from snapshed.domain.categorise import Category, Outcome


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one name; sizes in pixels."""

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


def document(head: Side, base: Side, algorithm: str, results: Sequence[Result]) -> bytes:
    """The comparison manifest: everything found, in a form people can download and a rebuild can read."""
    told = {
        "head_artifact_id": head.number,
        "base_artifact_id": base.number,
        "head": str(head.artifact_id),
        "base": str(base.artifact_id),
        "algorithm": algorithm,
        "summary": counts(results),
        "images": {result.name: dict(_told(result)) for result in results},
    }
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()


def _told(result: Result) -> Iterator[tuple[str, object]]:
    yield "status", result.category
    yield "head_hash", result.head_digest
    yield "base_hash", result.base_digest
    yield "changed_pixels", result.changed_pixels
    yield "total_pixels", result.total_pixels
    yield "threshold", result.threshold
    yield "diff_mask_image_id", None if result.mask_id is None else str(result.mask_id)
    yield "before_width", result.base_width
    yield "before_height", result.base_height
    yield "after_width", result.head_width
    yield "after_height", result.head_height
    yield "reason", result.reason
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
            told = dict(_told(result))
            mask = images[result.name]["diff_mask_image_id"]
            if images[result.name] != (told if result.mask_id else told | {"diff_mask_image_id": mask}):
                return True
    except (ValueError, KeyError, TypeError, AttributeError):
        return True
    return False
