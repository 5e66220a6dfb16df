"""The snapshot API that `sentry-cli` speaks: upload options, create, details, delete, approve.

Paths, field names and texts follow that client; what differs on purpose is said in docs/adr.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from snapshed.api.representations import details_document, latest_base_document
from snapshed.auth import Asker, Res, address_of, check_org, project_of, projects_of, require, upload_grant
from snapshed.bodies import Body, spooled, unpacked
from snapshed.domain.grants import USE_CASE
from snapshed.domain.verdict import Decided
from snapshed.errors import Forbidden, Invalid, NotFound
from snapshed.resources import Resources
from snapshed.work import deletion, recompare, review, shards, snapshots, uploads
from snapshed.work.access import Actor
from snapshed.work.deletion import Order
from snapshed.work.snapshots import Created

router = APIRouter(prefix="/api/0", tags=["snapshots"])

MOST_MANIFEST = 256 * 2**20
_MOST_AT_ONCE = 100
_USE_CASES = frozenset({"auto", "preprod", "snapshots", "preprod_snapshots"})

Manifest = Annotated[Body, Depends(spooled(lambda _: MOST_MANIFEST))]
Small = Annotated[Body, Depends(spooled(lambda _: 2**16))]

_PROJECT = "/projects/{org}/{project}/preprodartifacts/snapshots"
_SNAPSHOT = "/organizations/{org}/preprodartifacts/snapshots/{number}/"


@router.get(f"{_PROJECT}/upload-options/")
def upload_options(org: str, project: str, request: Request, resources: Res, actor: Asker) -> dict[str, Any]:
    """Open an upload session, or with `group` and `shards` join one, and say where and how to upload images in it."""
    found = project_of(resources, actor, org, project, "upload")
    if request.query_params.get("usecase", USE_CASE) not in _USE_CASES:
        raise Invalid("Invalid usecase")
    if (group := request.query_params.get("group")) is not None:
        count = request.query_params.get("shards", "")
        if not count.isascii() or not count.isdigit() or len(count) > 4:
            raise Invalid("Say how many shards the group has: shards=5.")
        token = shards.join(resources, found.org_id, found.id, actor.principal, group, int(count))
    else:
        token = uploads.begin(resources, found.org_id, found.id, actor.principal).token
    return {
        "objectstore": {
            "url": address_of(request),
            "usecase": USE_CASE,
            "scopes": [["org", str(found.org_id)], ["project", str(found.id)]],
            "authToken": token,
            "expirationPolicy": "manual",
        }
    }


@router.post(f"{_PROJECT}/")
def create(org: str, project: str, request: Request, resources: Res, actor: Asker, body: Manifest) -> dict[str, Any]:
    """Create a snapshot from a manifest whose images are all here; 409 lists those that are not."""
    found = project_of(resources, actor, org, project, "upload")
    text = unpacked(body.open(), request.headers.get("content-encoding"), MOST_MANIFEST, "The manifest")
    session_id = None
    if "x-os-auth" in request.headers:
        # A client that says which session is its own gets exactly that one; others are matched by what they uploaded.
        grant = upload_grant(request, resources)
        if grant.project_id != found.id:
            raise Forbidden("The upload token is for another project.")
        session_id = grant.session_id
    return created_document(request, snapshots.create(resources, found, actor.principal, text, session_id))


def created_document(request: Request, created: Created) -> dict[str, Any]:
    """What a client is told of the snapshot it made."""
    return {
        "artifactId": str(created.number),
        "snapshotMetricsId": str(created.number),
        "imageCount": created.image_count,
        "snapshotUrl": page_of(request, created.number),
    }


@router.get("/organizations/{org}/preprodartifacts/snapshots/by-commit/")
def by_commit(org: str, head_sha: str, resources: Res, actor: Asker, app_id: str | None = None) -> dict[str, str]:
    """The newest snapshot of a commit."""
    check_org(actor, org)
    require(actor, "read")
    if "\0" in head_sha + (app_id or ""):  # which PostgreSQL cannot even be asked for
        raise NotFound("No snapshot of this commit found")
    reach = [project.id for project in projects_of(resources, actor)]
    return {"head_artifact_id": str(snapshots.newest_of_commit(resources, reach, head_sha, app_id))}


@router.get("/organizations/{org}/preprodartifacts/snapshots/latest-base/")
def latest_base(
    org: str,
    resources: Res,
    actor: Asker,
    app_id: str = "",
    branch: str | None = None,
    project: str | None = None,
    projectSlug: str | None = None,
    compact_metadata: str = "",
) -> dict[str, Any]:
    """The newest snapshot of an app that has no base itself: what to compare a local run with."""
    check_org(actor, org)
    require(actor, "read")
    if not app_id:
        raise Invalid("app_id query parameter is required")
    reach = projects_of(resources, actor)
    if wanted := project or projectSlug:
        reach = [found for found in reach if wanted in (found.slug, str(found.id))]
        if not reach:
            raise Invalid("Invalid project parameter")
    if "\0" in app_id + (branch or ""):
        raise NotFound("No snapshot found")
    found = snapshots.newest_base(resources, [item.id for item in reach], app_id, branch)
    return latest_base_document(found, compact=compact_metadata in ("1", "true"))


@router.get(_SNAPSHOT)
def show(
    org: str, number: str, request: Request, resources: Res, actor: Asker, compact_metadata: str = ""
) -> dict[str, Any]:
    """A snapshot, its images, and what became of each compared with its base."""
    check_org(actor, org)
    require(actor, "read")
    reach = [project.id for project in projects_of(resources, actor)]
    found = snapshots.details(resources, reach, number_of(number))
    document = details_document(found, resources.now(), compact=compact_metadata in ("1", "true"))
    return document | {"snapshot_url": page_of(request, found.snapshot.number)}


@router.delete(_SNAPSHOT, status_code=204)
def delete(org: str, number: str, resources: Res, actor: Asker) -> Response:
    """Delete a snapshot and everything that belonged to it; Location names the receipt."""
    check_org(actor, org)
    reach = projects_of(resources, actor)
    snapshots.find(resources, [project.id for project in reach], number_of(number))
    require(actor, "delete")
    order = Order(actor.org_id, reach, actor.principal, snapshots=[number_of(number)])
    deletion_id = deletion.request(resources, order)
    return Response(status_code=204, headers={"location": f"/api/0/organizations/{org}/deletions/{deletion_id}/"})


@router.post(f"{_SNAPSHOT}recompare/")
def compare_again(org: str, number: str, resources: Res, actor: Asker) -> dict[str, str]:
    """Have a snapshot compared again with the same base, or with one if it has none yet; for administrators."""
    check_org(actor, org)
    reach = [project.id for project in projects_of(resources, actor)]
    snapshots.find(resources, reach, number_of(number))
    require(actor, "admin")
    recompare.recompare(resources, reach, number_of(number))
    return {"status": "queued"}


@router.delete("/internal/preprod-artifact/batch-delete/")
def batch_delete(resources: Res, actor: Asker, body: Small) -> JSONResponse:
    """Delete up to a hundred artifacts, whichever of them are there; for administrators."""
    require(actor, "admin")
    reach = projects_of(resources, actor)
    try:
        wanted = _artifact_numbers(_object(body))
    except Invalid as wrong:
        sentence = "Invalid JSON body" if str(wrong) == "Invalid json body" else str(wrong)
        return JSONResponse({"error": sentence}, 400)
    found = deletion.present(resources, [project.id for project in reach], wanted)
    if not found:
        return JSONResponse({"error": "No artifacts found with the provided IDs"}, 404)
    order = Order(actor.org_id, reach, actor.principal, snapshots=found, is_for_all_projects=actor.project_id is None)
    deletion_id = deletion.request(resources, order)
    return JSONResponse(
        {
            "success": True,
            "message": f"{len(found)} artifacts are deleted.",
            "artifact_ids": [str(number) for number in found],
            "deletion": str(deletion_id),
        },
        headers={"location": f"/api/0/organizations/{actor.org_slug}/deletions/{deletion_id}/"},
    )


def _artifact_numbers(fields: dict[str, Any]) -> list[int]:
    items = fields.get("preprod_artifact_ids")
    if not items:
        raise Invalid("preprod_artifact_ids is required")
    if not isinstance(items, list):
        raise Invalid("preprod_artifact_ids must be an array")
    numbers = [number for number in cast("list[object]", items) if _is_number(number)]
    if len(numbers) != len(cast("list[object]", items)):
        raise Invalid("preprod_artifact_ids must contain valid integers")
    if len(numbers) > _MOST_AT_ONCE:
        raise Invalid(f"Cannot delete more than {_MOST_AT_ONCE} artifacts at once")
    return [int(str(number)) for number in numbers]


def _is_number(value: object) -> bool:
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    return text.isascii() and text.isdigit() and len(text) <= 18


@router.post("/organizations/{org}/preprodartifacts/{number}/approve/", status_code=201)
def approve(org: str, number: str, resources: Res, actor: Asker, body: Small) -> Response:
    """Approve a snapshot as it stands."""
    feature = _object(body).get("feature_type")
    if feature not in ("snapshots", "size"):
        raise Invalid("feature_type must be one of: snapshots, size")
    return decide(resources, actor, org, number, "approved")


@router.post("/organizations/{org}/preprodartifacts/{number}/reject/", status_code=201)
def reject(org: str, number: str, resources: Res, actor: Asker) -> Response:
    """Reject a snapshot: its changes are not wanted."""
    return decide(resources, actor, org, number, "rejected")


def decide(resources: Resources, actor: Actor, org: str, number: str, decision: Decided) -> Response:
    """Remember a decision; 200 instead of 201 if this actor has decided so already."""
    check_org(actor, org)
    reach = [project.id for project in projects_of(resources, actor)]
    snapshots.find(resources, reach, number_of(number))
    require(actor, "review")
    is_new = review.decide(resources, reach, number_of(number), decision, actor.principal, "api")
    word = decision.capitalize()
    return JSONResponse({"detail": word if is_new else f"Already {decision}"}, 201 if is_new else 200)


def page_of(request: Request, number: int) -> str:
    """The address of a snapshot's page."""
    return f"{address_of(request)}/snapshots/{number}"


def number_of(text: str) -> int:
    """A snapshot's number. Raises NotFound for anything that is none: such a snapshot does not exist."""
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise NotFound("Snapshot not found")
    return int(text)


def _object(body: Body) -> dict[str, Any]:
    try:
        document: object = json.loads(body.open().read())
    except (ValueError, RecursionError):
        raise Invalid("Invalid json body") from None
    if not isinstance(document, dict):
        raise Invalid("Invalid json body")
    return cast("dict[str, Any]", document)
