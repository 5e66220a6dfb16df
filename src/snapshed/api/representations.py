"""How a snapshot looks as JSON. Pure: rows in, documents out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

from snapshed.db.snapshots import Image, Snapshot
from snapshed.domain import ancestry, report, verdict
from snapshed.domain.manifest import Commit
from snapshed.domain.receipt import moment
from snapshed.domain.report import Result
from snapshed.work.snapshots import Details, ImageDetail

_COMPACT = ("display_name", "image_file_name", "group", "description")
_STATES = {"waiting": "pending", "running": "processing", "done": "success", "failed": "failed"}

Document = dict[str, Any]


def details_document(details: Details, now: datetime, *, compact: bool) -> Document:
    """The answer of the details endpoint; `compact` cuts every image to its names and texts."""
    snapshot = details.snapshot
    compared = details.comparison is not None and details.comparison.state == "done"
    head = {image.name: _head_image(image, snapshot.diff_threshold) for image in details.images}
    base = {image.name: _image(image) for image in details.base_images}
    lists = _lists(details.results, head, base) if compared else _empty()
    if compared:
        _add_unchanged(lists, details, head)
    state = comparison_state(details, now)
    document: Document = {
        "head_artifact_id": str(snapshot.number),
        "base_artifact_id": None if details.base is None else str(details.base.number),
        "project_id": str(snapshot.project_id),
        "comparison_type": "diff" if compared else "waiting_for_base" if state == "waiting_for_base" else "solo",
        "state": "UPLOADED",
        "app_id": snapshot.app_id,
        "is_selective": snapshot.selective,
        "date_added": moment(snapshot.created_at),
        "vcs_info": _commit(snapshot),
        "images": [] if compared else list(head.values()),
        "image_count": snapshot.image_count,
        "diff_threshold": snapshot.diff_threshold,
        "comparison_state": state,
        "lost_base_artifact_id": None if snapshot.lost_base is None else str(snapshot.lost_base),
        "base_explanation": _base_explanation(details),
        "comparison_error_message": details.comparison.error if details.comparison and state == "failed" else None,
        "approval_status": _approval(details),
        "approvers": [
            {"id": entry.actor, "name": entry.actor, "approved_at": moment(entry.decided_at), "source": "snapshed"}
            for entry in details.decisions
            if entry.decision == "approved" and not entry.actor.startswith(verdict.AUTOMATIC)
        ],
        "verdict": verdict_of(details, now),
    }
    for category, entries in lists.items():
        document[category] = entries
        document[f"{category}_count"] = len(entries)
    return _compacted(document) if compact else document


def image_document(found: ImageDetail) -> Document:
    """The answer of the image endpoint: flat, and null where there is nothing to say."""
    result = found.result
    is_changed = found.status == "changed" and result is not None
    head = None if found.status == "removed" else found.head or found.base
    base = None if found.status in ("added", None) else found.base
    mask = str(result.mask_id) if is_changed and result and result.mask_id else None
    total = result.total_pixels if is_changed and result else None
    return {
        "image_file_name": found.name,
        "comparison_status": found.status,
        "head_image": None if head is None else _image_info(head, found),
        "base_image": None if base is None else _image_info(base, found),
        "diff_image_url": None if mask is None else image_address(found.org_slug, found.project_slug, mask),
        "diff_percentage": (result.changed_pixels or 0) / total if result and total else None,
        "previous_image_file_name": result.previous_name if result else None,
    }


def _image_info(image: Image, found: ImageDetail) -> Document:
    document = _head_image(image, found.manifest_threshold)
    document["content_hash"] = document.pop("key")
    address = image_address(found.org_slug, found.project_slug, image.digest)
    return document | {"image_url": None if image.image_id is None else address}


def image_address(org_slug: str, project_slug: str, image: str) -> str:
    """Where the bytes of an image or mask are."""
    return f"/api/0/projects/{org_slug}/{project_slug}/files/images/{image}/"


def latest_base_document(details: Details, *, compact: bool) -> Document:
    """The answer of the latest-base endpoint."""
    snapshot = details.snapshot
    images: list[Document] = []
    for image in details.images:
        shown = _head_image(image, snapshot.diff_threshold)
        address = image_address(snapshot.org_slug, snapshot.project_slug, image.digest)
        cut = {name: shown.get(name) for name in _COMPACT} if compact else shown
        images.append(cut | {"image_url": address})
    document: Document = {
        "head_artifact_id": str(snapshot.number),
        "project_id": str(snapshot.project_id),
        "project_slug": snapshot.project_slug,
        "app_id": snapshot.app_id,
        "image_count": snapshot.image_count,
        "images": images,
        "diff_threshold": snapshot.diff_threshold,
        "date_added": moment(snapshot.created_at),
    }
    return document | ({"vcs_info": _commit(snapshot)} if snapshot.head_sha else {})


def comparison_state(details: Details, now: datetime) -> str | None:
    """The state of the newest comparison, or why there is none."""
    if details.comparison is not None:
        return _STATES[details.comparison.state]
    snapshot = details.snapshot
    if not snapshot.base_sha:
        return None
    return "waiting_for_base" if verdict.awaits_base(snapshot.base_sha, snapshot.created_at, now) else "no_base_build"


def verdict_of(details: Details, now: datetime) -> str:
    """What a gate makes of the snapshot."""
    if details.comparison is not None:
        state = details.comparison.state
    else:
        state = "waiting" if comparison_state(details, now) == "waiting_for_base" else None
    counts = (details.comparison.counts or {}) if details.comparison else {}
    return verdict.verdict(state, counts, details.decisions[0].decision if details.decisions else None)


def _base_explanation(details: Details) -> Document | None:
    """Why this base and no other; None where no base is asked for."""
    snapshot = details.snapshot
    if not snapshot.base_sha:
        return None
    return {
        "base_sha": snapshot.base_sha,
        "repository": snapshot.base_repo_name or snapshot.head_repo_name,
        "chosen": None if details.base is None else str(details.base.number),
        "passed_over": [
            {"snapshot": str(one.number), "reason": one.reason, "sentence": ancestry.SENTENCES[one.reason]}
            for one in details.passed_over
        ],
        "leans_on": [str(number) for number in (details.comparison.ancestors if details.comparison else ())],
    }


def _approval(details: Details) -> str | None:
    if not details.decisions:
        return None
    newest = details.decisions[0]
    if newest.decision != "approved":
        return "requires_approval"
    return "auto_approved" if newest.actor.startswith(verdict.AUTOMATIC) else "approved"


def _commit(snapshot: Snapshot) -> Document:
    return {field: getattr(snapshot, field) for field in Commit.__dataclass_fields__}


def _image(image: Image) -> Document:
    return {
        **{name: value for name, value in image.facts.items() if name not in ("key", "image_file_name")},
        "key": image.digest,
        "display_name": image.facts.get("display_name"),
        "group": image.facts.get("group"),
        "image_file_name": image.name,
        "width": image.width,
        "height": image.height,
        "canvas_theme": image.facts.get("canvas_theme"),
        "tags": image.facts.get("tags"),
        "description": image.facts.get("description"),
        **({"withdrawn": True} if image.image_id is None else {}),
    }


def _head_image(image: Image, manifest_threshold: float | None) -> Document:
    own = image.diff_threshold
    return _image(image) | {"diff_threshold": manifest_threshold if own is None else own}


def _bare(name: str, digest: str | None, width: int | None, height: int | None) -> Document:
    return {
        "key": digest or "",
        "display_name": name,
        "group": None,
        "image_file_name": name,
        "width": width or 0,
        "height": height or 0,
        "canvas_theme": None,
    }


def _empty() -> dict[str, list[Document]]:
    categories = ("changed", "added", "removed", "renamed", "unchanged", "errored", "skipped")
    return {category: [] for category in categories}


def _lists(
    results: list[Result], head: Mapping[str, Document], base: Mapping[str, Document]
) -> dict[str, list[Document]]:
    lists = _empty()
    for result in results:
        head_image = head.get(result.name) or _bare(
            result.name, result.head_digest or result.base_digest, result.head_width, result.head_height
        )
        base_name = result.previous_name or result.name
        base_image = base.get(base_name) or _bare(base_name, result.base_digest, result.base_width, result.base_height)
        if result.category in ("changed", "renamed", "errored"):
            lists[result.category].append(_pair(result, base_image, head_image))
        elif result.category in ("removed", "skipped"):
            lists[result.category].append(base_image)
        else:
            lists[result.category].append(head_image)
    lists["changed"].sort(key=lambda pair: (-(pair["diff"] or 0), pair["head_image"]["image_file_name"]))
    return lists


def _pair(result: Result, base_image: Document, head_image: Document) -> Document:
    is_changed = result.category == "changed"
    total = result.total_pixels or 0
    return {
        "base_image": base_image,
        "head_image": head_image,
        "diff_image_key": str(result.mask_id) if is_changed and result.mask_id else None,
        "diff": (result.changed_pixels or 0) / total if is_changed and total else None,
        "reason": result.reason,
        "detail": result.detail,
        "changed_pixels": result.changed_pixels,
        "total_pixels": result.total_pixels,
        "threshold": result.threshold,
        "threshold_from": result.threshold_from,
        "passing_threshold": result.passing_threshold if is_changed else None,
        "regions": report.told_regions(result),
        "fingerprint": result.fingerprint,
        "explanation": result.explanation,
        "moved_by": result.moved_by,
    }


def _add_unchanged(lists: dict[str, list[Document]], details: Details, head: Mapping[str, Document]) -> None:
    """Unchanged images have no row of their own: they are the head's names that no result speaks about."""
    told = {result.name for result in details.results}
    lists["unchanged"] += [document for name, document in head.items() if name not in told]
    lists["unchanged"].sort(key=lambda document: str(document["image_file_name"]))


def _compacted(document: Document) -> Document:
    def cut(value: Any) -> Any:  # noqa: ANN401  any part of a JSON document
        if isinstance(value, list):
            return [cut(item) for item in cast("list[Any]", value)]
        if isinstance(value, dict):
            fields = cast("Document", value)
            if "image_file_name" in fields:
                return {name: fields.get(name) for name in _COMPACT}
            return {name: cut(item) for name, item in fields.items()}
        return value

    return cut(document)
