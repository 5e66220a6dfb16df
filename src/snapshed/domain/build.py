"""What a client says when it uploads a build, one file with its metadata, and what the store keeps of it. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from snapshed.domain.keys import is_digest
from snapshed.domain.manifest import Told
from snapshed.errors import Invalid

MOST_TEXT = 255
MOST_FACTS = 2**16
"""Bytes of JSON that may be said about one file."""

_DEEPEST = 32
_UNSTORABLE = re.compile("[\0-\x1f\ud800-\udfff]")
_SHA1 = re.compile(r"[0-9a-f]{40}")
_FIELDS = frozenset({"app_id", "file_name", "head_sha", "head_repo_name", "head_ref", "metadata"})


@dataclass(frozen=True, slots=True)
class NewBuild:
    """A build that may be stored; `size` in bytes, `facts` as the client said."""

    app_id: str
    file_name: str
    size: int
    digest: str
    head_sha: str | None
    head_repo_name: str | None
    head_ref: str | None
    facts: dict[str, Any]


def parse(fields: Mapping[str, str], size: int, digest: str) -> NewBuild:
    """Read what is said about a file of `size` bytes. Raises Invalid with a sentence that names field and rule."""
    if unknown := sorted(set(fields) - _FIELDS):
        raise Invalid(f"Unknown field {unknown[0][:80]!r}; a build may have {', '.join(sorted(_FIELDS))}.")
    for field in ("app_id", "file_name"):
        if not fields.get(field):
            raise Invalid(f"The field {field} is required.")
    texts = {field: _text(field, value) for field, value in fields.items() if field != "metadata" and value}
    name = texts["file_name"]
    if "/" in name or "\\" in name or name in (".", ".."):
        raise Invalid("The field file_name must be the name of a file, without folders.")
    sha = texts.get("head_sha")
    if sha is not None and not _SHA1.fullmatch(sha):
        raise Invalid("The field head_sha must be a full commit hash of 40 lower-case hexadecimal digits.")
    return NewBuild(
        app_id=texts["app_id"],
        file_name=name,
        size=size,
        digest=digest,
        head_sha=sha,
        head_repo_name=texts.get("head_repo_name"),
        head_ref=texts.get("head_ref"),
        facts=_facts(fields.get("metadata")),
    )


def _text(field: str, value: str) -> str:
    if len(value) > MOST_TEXT or _UNSTORABLE.search(value):
        raise Invalid(f"The field {field} must be text of 1 to {MOST_TEXT} characters without control characters.")
    return value


def _facts(text: str | None) -> dict[str, Any]:
    if not text:
        return {}
    if len(text.encode("utf-8", "replace")) > MOST_FACTS:
        raise Invalid(f"The field metadata may hold {MOST_FACTS} bytes.")
    try:
        document: object = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise Invalid("The field metadata must be a JSON object.") from None
    if not isinstance(document, dict):
        raise Invalid("The field metadata must be a JSON object.")
    facts = cast("dict[str, Any]", document)
    _check_storable(facts)
    return facts


def _refuse_constant(text: str) -> object:
    """`NaN` and `Infinity` are Python's own, not JSON's."""
    raise ValueError(text)


def _check_storable(value: object, depth: int = 0) -> None:
    """Raise Invalid for metadata that JSON can spell but no database can hold."""
    if depth > _DEEPEST:
        raise Invalid(f"The field metadata must not nest deeper than {_DEEPEST} levels.")
    if isinstance(value, str) and re.search("[\0\ud800-\udfff]", value):
        raise Invalid("The field metadata must not contain NUL characters or halves of surrogate pairs.")
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        raise Invalid("The field metadata must not contain numbers that are not finite.")
    if isinstance(value, dict):
        for key, item in cast("dict[str, Any]", value).items():
            _check_storable(key, depth)
            _check_storable(item, depth + 1)
    elif isinstance(value, list):
        for item in cast("list[Any]", value):
            _check_storable(item, depth + 1)


def stored(build: NewBuild, artifact_id: UUID, number: int, created_at: datetime, created_by: str) -> bytes:
    """The build's manifest as the store keeps it: enough to bring the build back if the database is lost."""
    holds: list[dict[str, Any]] = []  # none yet: a hold is written into the manifest when it is placed
    document = {
        "artifact_id": str(artifact_id),
        "kind": "build",
        "number": number,
        "app_id": build.app_id,
        "created_at": created_at.isoformat(),
        "created_by": created_by,
        "commit": {"head_sha": build.head_sha, "head_repo_name": build.head_repo_name, "head_ref": build.head_ref},
        "holds": holds,
        "file": {"name": build.file_name, "size": build.size, "content_hash": build.digest, "metadata": build.facts},
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def of_build(told: Told) -> NewBuild:
    """The build a stored manifest tells about. Raises Invalid."""
    try:
        file, commit = told.fields["file"], told.fields["commit"]
        read = NewBuild(
            app_id=told.fields["app_id"],
            file_name=file["name"],
            size=file["size"],
            digest=file["content_hash"],
            head_sha=commit["head_sha"],
            head_repo_name=commit["head_repo_name"],
            head_ref=commit["head_ref"],
            facts=file["metadata"],
        )
        is_one = told.kind == "build" and is_digest(read.digest) and read.size >= 0
    except (KeyError, TypeError):
        raise Invalid("This is no manifest of a build.") from None
    if not is_one:
        raise Invalid("This is no manifest of a build.")
    return read
