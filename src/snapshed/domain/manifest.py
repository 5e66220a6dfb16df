"""What a client says when it creates a snapshot, and what the store keeps of it.

Parsing is strict where a mistake would be stored, lenient where newer clients may add fields; nothing is stored here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, cast
from uuid import UUID

from snapshed.domain.keys import is_digest
from snapshed.domain.receipt import moment
from snapshed.errors import Invalid

MOST_IMAGES = 50_000
MOST_NAME = 1_024
"""Characters of an image name: the longest path common file systems allow is 4,096 bytes, four a character."""

MOST_FACTS = 2**20
"""Bytes of JSON that may be said about one image."""

_DEEPEST = 32
"""How deep what is said about an image may nest: beyond what people write, below what any reader of JSON gives up at."""

_RESERVED = "manifest.json"
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
"""NUL and halves of surrogate pairs: JSON can spell them, PostgreSQL and UTF-8 cannot."""

_SHA1 = re.compile(r"[0-9a-f]{40}")
_MEASURES = frozenset({"content_hash", "width", "height", "diff_threshold"})
_TEXTS = ("provider", "head_repo_name", "base_repo_name", "head_ref", "base_ref")


@dataclass(frozen=True, slots=True)
class Image:
    """One named image of a manifest; sizes in pixels, `threshold` a share of pixels, `facts` as the client said."""

    name: str
    digest: str
    width: int
    height: int
    threshold: float | None
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Commit:
    """Which commit the images belong to and which it builds on, as far as the client knows."""

    head_sha: str | None
    base_sha: str | None
    provider: str | None
    head_repo_name: str | None
    base_repo_name: str | None
    head_ref: str | None
    base_ref: str | None
    pr_number: int | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """A create request that may be stored."""

    app_id: str
    images: tuple[Image, ...]
    threshold: float | None
    selective: bool
    all_names: tuple[str, ...] | None
    commit: Commit

    @property
    def digests(self) -> list[str]:
        """The distinct digests named, sorted."""
        return sorted({image.digest for image in self.images})


def parse(body: bytes) -> Manifest:
    """Read a create request. Raises Invalid with a sentence that names the field and the rule."""
    try:
        document: object = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise Invalid("Invalid json body") from None
    if not isinstance(document, dict):
        raise Invalid("Invalid json body")
    return _read(cast("dict[str, Any]", document))


def _read(fields: Mapping[str, Any]) -> Manifest:
    selective = _flag(fields, "selective")
    commit = _commit(fields)
    images = _images(fields)
    return Manifest(
        app_id=_app_id(fields),
        images=images,
        threshold=_threshold(fields.get("diff_threshold"), "The diff_threshold field"),
        selective=selective,
        all_names=_all_names(fields, commit, images, selective=selective),
        commit=commit,
    )


def _refuse_constant(text: str) -> object:
    """`NaN` and `Infinity` are Python's own, not JSON's."""
    raise ValueError(text)


def _app_id(fields: Mapping[str, Any]) -> str:
    app_id = fields.get("app_id")
    if not isinstance(app_id, str) or not 0 < len(app_id) <= 255 or _UNSTORABLE.search(app_id):
        raise Invalid("The app_id field is required and must be a string with maximum length of 255 characters.")
    return app_id


def _flag(fields: Mapping[str, Any], field: str) -> bool:
    value = fields.get(field)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise Invalid(f"The {field} field must be a boolean.")
    return value


def _threshold(value: object, what: str) -> float | None:
    if value is None:
        return None
    # NaN is not at least 0 either, and a whole number may be too large for any other question.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise Invalid(f"{what} must be a number, at least 0 and less than 1.")
    return float(value)


def _commit(fields: Mapping[str, Any]) -> Commit:
    number = fields.get("pr_number")
    if number is not None and (isinstance(number, bool) or not isinstance(number, int) or not 1 <= number < 2**31):
        raise Invalid("The pr_number field must be a positive integer.")
    texts = {field: _text(fields, field) for field in _TEXTS}
    return Commit(head_sha=_sha(fields, "head_sha"), base_sha=_sha(fields, "base_sha"), pr_number=number, **texts)


def _sha(fields: Mapping[str, Any], field: str) -> str | None:
    value = fields.get(field)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not _SHA1.fullmatch(value):
        raise Invalid(f"The {field} field must be a 40-character hexadecimal SHA1 string (no uppercase letters).")
    return value


def _text(fields: Mapping[str, Any], field: str) -> str | None:
    value = fields.get(field)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > 255 or _UNSTORABLE.search(value):
        hint = " containing the domain of the VCS provider (ex. github.com)" if field == "provider" else ""
        raise Invalid(f"The {field} field must be a string with maximum length of 255 characters{hint}.")
    return value


def _images(fields: Mapping[str, Any]) -> tuple[Image, ...]:
    images = fields.get("images")
    if not isinstance(images, dict):
        raise Invalid("The images field is required and must be an object mapping image names to image metadata.")
    named = cast("dict[str, Any]", images)
    if len(named) > MOST_IMAGES:
        raise Invalid(f"The images field may hold at most {MOST_IMAGES} images; this one holds {len(named)}.")
    if _RESERVED in named:
        raise Invalid("The filename manifest.json is reserved.")
    return tuple(_image(name, named[name]) for name in sorted(named))


def check_name(name: str) -> None:
    """Raise Invalid for a name that is no relative path below a folder."""
    problem = None
    if not 0 < len(name) <= MOST_NAME:
        problem = f"must have 1 to {MOST_NAME} characters"
    elif any(ord(letter) < 32 or 0xD800 <= ord(letter) <= 0xDFFF for letter in name):
        problem = "must not contain control characters"
    elif name.startswith("/") or "\\" in name or any(part in ("", ".", "..") for part in name.split("/")):
        problem = "must be a relative path without empty, '.' or '..' parts and without backslashes"
    if problem:
        raise Invalid(f"The image name {name[:80]!r} {problem}; rename the file and upload again.")


def _image(name: str, value: object) -> Image:
    check_name(name)
    if not isinstance(value, dict):
        raise Invalid(f'Validation error in image "{name}": must be an object.')
    entry = cast("dict[str, Any]", value)
    digest = entry.get("content_hash")
    if not isinstance(digest, str) or not is_digest(digest):
        raise Invalid(
            f'Validation error in image "{name}", field "content_hash": must be the file\'s SHA-256, '
            "64 lower-case hexadecimal digits."
        )
    return Image(
        name=name,
        digest=digest,
        width=_length(name, entry, "width"),
        height=_length(name, entry, "height"),
        threshold=_threshold(
            entry.get("diff_threshold"), f'Validation error in image "{name}", field "diff_threshold": it'
        ),
        facts=_facts(name, entry),
    )


def _length(name: str, entry: Mapping[str, Any], field: str) -> int:
    value = entry.get(field)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise Invalid(f'Validation error in image "{name}", field "{field}": must be a whole number of pixels.')
    return value


def _facts(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    facts = {field: value for field, value in entry.items() if field not in _MEASURES}
    _check_storable(name, facts)
    for field in ("display_name", "group", "description"):
        value = facts.get(field)
        if value is not None and not isinstance(value, str):
            raise Invalid(f'Validation error in image "{name}", field "{field}": must be a string.')
    facts["tags"] = _tags(facts.get("tags"))
    if facts.get("canvas_theme") not in ("light", "dark"):
        facts["canvas_theme"] = None
    known = {field: value for field, value in facts.items() if value is not None}
    if len(json.dumps(known)) > MOST_FACTS:
        raise Invalid(f'Validation error in image "{name}": metadata may hold {MOST_FACTS} bytes.')
    return known


def _check_storable(name: str, value: object, depth: int = 0) -> None:
    """Raise Invalid for metadata that JSON can spell but no database or file can hold."""
    problem = None
    if depth > _DEEPEST:
        problem = f"must not nest deeper than {_DEEPEST} levels"
    elif isinstance(value, str) and _UNSTORABLE.search(value):
        problem = "must not contain NUL characters or halves of surrogate pairs"
    elif isinstance(value, float) and not math.isfinite(value):
        problem = "must not contain numbers that are not finite"
    if problem:
        raise Invalid(f'Validation error in image "{name}": metadata {problem}.')
    if isinstance(value, dict):
        for key, item in cast("dict[str, Any]", value).items():
            _check_storable(name, key, depth)
            _check_storable(name, item, depth + 1)
    elif isinstance(value, list):
        for item in cast("list[Any]", value):
            _check_storable(name, item, depth + 1)


def _tags(value: object) -> dict[str, str] | None:
    if isinstance(value, dict):
        return {str(key): str(item) for key, item in cast("dict[Any, Any]", value).items()}
    if isinstance(value, list):
        return {str(item): str(item) for item in cast("list[Any]", value)}
    return None


def _all_names(
    fields: Mapping[str, Any], commit: Commit, images: tuple[Image, ...], *, selective: bool
) -> tuple[str, ...] | None:
    value = fields.get("all_image_file_names")
    if value is None:
        names = None
    else:
        items = cast("list[Any]", value) if isinstance(value, list) else []
        if not isinstance(value, list) or len(items) > MOST_IMAGES or not all(isinstance(item, str) for item in items):
            raise Invalid(
                f"The all_image_file_names field must be an array of strings with at most {MOST_IMAGES} entries."
            )
        names = tuple(cast("list[str]", items))
        if not selective:
            raise Invalid("all_image_file_names requires selective to be true.")
    if selective and commit.base_sha is None:
        raise Invalid("selective requires base_sha to be provided.")
    if names is None:
        return None
    if not names:
        raise Invalid("all_image_file_names must not be empty.")
    for name in names:
        check_name(name)
    if not {image.name for image in images} <= set(names):
        raise Invalid("Every image name must appear in all_image_file_names.")
    return names


def stored(manifest: Manifest, artifact_id: UUID, number: int, created_at: datetime, created_by: str) -> bytes:
    """The manifest as the store keeps it: enough to bring the snapshot back if the database is lost."""
    commit = manifest.commit
    holds: list[str] = []  # none yet: a hold is written into the manifest when it is placed
    document = {
        "artifact_id": str(artifact_id),
        "kind": "snapshot",
        "number": number,
        "app_id": manifest.app_id,
        "created_at": created_at.isoformat(),
        "created_by": created_by,
        "diff_threshold": manifest.threshold,
        "selective": manifest.selective,
        "all_image_file_names": manifest.all_names,
        "commit": {field: getattr(commit, field) for field in Commit.__dataclass_fields__},
        "holds": holds,
        "images": {
            image.name: {
                **image.facts,
                "content_hash": image.digest,
                "width": image.width,
                "height": image.height,
                "diff_threshold": image.threshold,
            }
            for image in manifest.images
        },
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class ToldHold:
    """A hold as a stored manifest tells it."""

    id: UUID
    reason: str
    placed_by: str
    placed_at: datetime
    ends_at: datetime | None


@dataclass(frozen=True, slots=True)
class Told:
    """What every stored manifest tells, of a snapshot or a build. `number` is None in those of earlier releases."""

    artifact_id: UUID
    kind: str
    number: int | None
    created_at: datetime
    created_by: str
    holds: tuple[ToldHold, ...]
    fields: Mapping[str, Any]


def read_stored(text: bytes) -> Told:
    """What a stored manifest tells. Raises Invalid for what is none."""
    try:
        fields = cast("dict[str, Any]", json.loads(text))
        number = fields.get("number")
        return Told(
            artifact_id=UUID(fields["artifact_id"]),
            kind=fields["kind"],
            number=number if isinstance(number, int) else None,
            created_at=datetime.fromisoformat(fields["created_at"]),
            created_by=str(fields["created_by"]),
            holds=tuple(
                ToldHold(
                    UUID(hold["id"]),
                    hold["reason"],
                    hold["placed_by"],
                    datetime.fromisoformat(hold["placed_at"]),
                    datetime.fromisoformat(hold["ends_at"]) if hold["ends_at"] else None,
                )
                for hold in fields["holds"]
            ),
            fields=fields,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Invalid("This is no stored manifest.") from None


def of_snapshot(told: Told) -> Manifest:
    """The snapshot a stored manifest tells about, as it was asked for. Raises Invalid."""
    commit = told.fields.get("commit")
    if told.kind != "snapshot" or not isinstance(commit, dict):
        raise Invalid("This is no manifest of a snapshot.")
    return _read({**told.fields, **cast("dict[str, Any]", commit)})


class Standing(Protocol):
    """A hold as its manifest tells it."""

    @property
    def id(self) -> UUID: ...
    @property
    def reason(self) -> str: ...
    @property
    def placed_by(self) -> str: ...
    @property
    def placed_at(self) -> datetime: ...
    @property
    def ends_at(self) -> datetime | None: ...


def with_holds(text: bytes, standing: Sequence[Standing]) -> bytes:
    """A stored manifest, of a snapshot or a build, that tells exactly these holds."""
    document = cast("dict[str, Any]", json.loads(text))
    document["holds"] = [
        {
            "id": str(hold.id),
            "reason": hold.reason,
            "placed_by": hold.placed_by,
            "placed_at": moment(hold.placed_at),
            "ends_at": moment(hold.ends_at),
        }
        for hold in standing
    ]
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def differ_in_holds_at_most(text: bytes, other: bytes) -> bool:
    """Whether two stored manifests tell the same artifact, whatever holds and whichever moment of making they tell."""
    first, second = cast("dict[str, Any]", json.loads(text)), cast("dict[str, Any]", json.loads(other))
    for said in (first, second):
        for field in ("holds", "created_at"):
            said.pop(field, None)
    first.setdefault("number", second.get("number"))  # those of earlier releases tell none
    return first == second


def contradicts(text: bytes, expected: bytes) -> bool:
    """Whether a stored manifest says anything else than the one written from the rows. The moment of its making is its
    own, and holds that have ended may still be told."""
    try:
        said = cast("dict[str, Any]", json.loads(text))
        wanted = cast("dict[str, Any]", json.loads(expected))
        told = {hold["id"] for hold in said.pop("holds")}
        standing = {hold["id"] for hold in wanted.pop("holds")}
        del said["created_at"], wanted["created_at"]
        said.setdefault("number", wanted["number"])  # those of earlier releases tell none
    except (ValueError, KeyError, TypeError, AttributeError):
        return True
    return said != wanted or not standing <= told
