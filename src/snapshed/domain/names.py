"""What the store keeps of the names of projects, so that a rebuild knows what the numbers in storage keys stand for. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Protocol, cast

_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


class Named(Protocol):
    """A project and its organization."""

    @property
    def id(self) -> int: ...
    @property
    def org_id(self) -> int: ...
    @property
    def org_slug(self) -> str: ...
    @property
    def slug(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Names:
    """The names of a project and its organization."""

    org_id: int
    org_slug: str
    project_id: int
    slug: str


def written(project: Named) -> bytes:
    """The names of a project as the store keeps them."""
    document = {"org_id": project.org_id, "org": project.org_slug, "project_id": project.id, "project": project.slug}
    return json.dumps(document).encode()


def read(text: bytes) -> Names | None:
    """Names as they were written, or None for what is damaged."""
    try:
        fields = cast("dict[str, Any]", json.loads(text))
        found = Names(int(fields["org_id"]), fields["org"], int(fields["project_id"]), fields["project"])
        return found if _SLUG.fullmatch(found.org_slug) and _SLUG.fullmatch(found.slug) else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def made_up(org_id: int, project_id: int) -> Names:
    """Names for a project whose own are lost. The first of all is what every installation begins with."""
    if (org_id, project_id) == (1, 1):
        return Names(1, "main", 1, "main")
    return Names(org_id, "main" if org_id == 1 else f"org-{org_id}", project_id, f"project-{project_id}")
