"""Deleting over HTTP: what is refused, what a preview promises, what a receipt says, and that gone is gone at once."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from api_fixtures import Operation, Project, Service, commit_sha, entry, manifest_of, png, running, sha
from cryptography.hazmat.primitives.serialization import load_pem_public_key

KINDS = ("image", "manifest", "comparison", "mask", "thumbnail", "archive")
CLASSES = ("removed", "waiting", "kept_shared", "kept_pinned")
RECEIPT = {
    "id",
    "state",
    "requested_at",
    "requested_by",
    "reason",
    "journaled_at",
    "completed_at",
    "verified_at",
    "pins_end_at",
    "snapshots",
    "rows",
    "objects",
    "bytes",
    "traces",
    "failures",
    "signature",
    "scope",
    "target",
    "withdrawn_from",
    "refused_uploads",
    "urgent",
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("deletions") / "data") as service:
        yield service


@pytest.fixture
def project(service: Service) -> Project:
    return service.new_project()


def assert_receipt(receipt: dict[str, Any]) -> None:
    """The shape that every receipt has, and the balance that every receipt keeps."""
    assert set(receipt) - {"plan"} == RECEIPT
    assert set(receipt["rows"]) == {"snapshots", "snapshot_images", "comparisons", "approvals"}
    assert tuple(receipt["objects"]) == KINDS
    for counts in receipt["objects"].values():
        assert set(counts) == {"released", *CLASSES}
        assert counts["released"] == sum(counts[name] for name in CLASSES)
    assert set(receipt["bytes"]) == set(CLASSES)
    assert set(receipt["traces"]) == {"released", "removed", "waiting"}
    assert receipt["traces"]["released"] == receipt["traces"]["removed"] + receipt["traces"]["waiting"]
    assert all(isinstance(number, str) for number in receipt["snapshots"])
    for field in ("requested_at", "journaled_at", "completed_at", "verified_at", "pins_end_at"):
        if receipt[field] is not None:
            assert receipt[field].endswith("Z")
            assert datetime.fromisoformat(receipt[field]).tzinfo is not None


def total(receipt: dict[str, Any], name: str) -> int:
    return sum(counts[name] for counts in receipt["objects"].values())


def exists(project: Project, number: int) -> bool:
    return project.ask("GET", project.snapshot_path(number)).status_code == 200


# --- Asking ----------------------------------------------------------------------------------------------------------


def test_deleting_a_snapshot_is_answered_with_the_place_of_its_receipt(project: Project) -> None:
    number = project.snapshot({"a.png": png("one")})
    answer = project.ask("DELETE", project.snapshot_path(number))
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["location"].startswith(project.deletions_path)
    receipt = project.get(answer.headers["location"])
    assert_receipt(receipt)
    assert receipt["snapshots"] == [str(number)]
    assert project.ask("DELETE", project.snapshot_path(number)).status_code == 404


def test_a_deletion_is_answered_with_its_receipt(service: Service, project: Project) -> None:
    images = {"a.png": png("first"), "b.png": png("second")}
    numbers = [project.snapshot(images), project.snapshot({"a.png": png("third")})]
    answer = project.order({"snapshots": [str(number) for number in numbers], "reason": "not ours"})
    assert answer.status_code == 202
    receipt = answer.json()
    assert_receipt(receipt)
    assert answer.headers["location"] == f"{project.deletions_path}{receipt['id']}/"
    assert str(UUID(receipt["id"])) == receipt["id"]
    assert (receipt["state"], receipt["requested_by"], receipt["reason"]) == ("removing", "token:test", "not ours")
    assert (receipt["completed_at"], receipt["verified_at"], receipt["signature"]) == (None, None, None)
    assert receipt["journaled_at"] is not None
    assert receipt["snapshots"] == [str(number) for number in numbers]
    assert receipt["rows"] == {"snapshots": 2, "snapshot_images": 3, "comparisons": 0, "approvals": 0}
    assert receipt["objects"]["image"] == {
        "released": 3,
        "removed": 0,
        "waiting": 3,
        "kept_shared": 0,
        "kept_pinned": 0,
    }
    assert receipt["objects"]["manifest"]["waiting"] == 2
    assert receipt["traces"] == {"released": 2, "removed": 0, "waiting": 2}
    assert receipt["failures"] == []
    assert (service.objects / ".snapshed" / "journal" / f"{receipt['id']}.json").is_file()


def test_a_complete_receipt_counts_everything_is_signed_and_is_kept_in_the_store(
    service: Service, project: Project
) -> None:
    images = {"a.png": png("complete one"), "b.png": png("complete two")}
    manifest_bytes = sum(map(len, images.values()))
    receipt = project.delete(project.snapshot(images))
    service.settle()
    done = project.receipt(receipt["id"])
    assert_receipt(done)
    assert done["state"] == "complete"
    assert done["requested_at"] <= done["journaled_at"] <= done["verified_at"] <= done["completed_at"]
    assert (total(done, "waiting"), total(done, "kept_pinned"), total(done, "removed")) == (0, 0, 3)
    assert done["bytes"]["removed"] > manifest_bytes
    assert done["bytes"]["waiting"] == 0
    assert done["traces"] == {"released": 1, "removed": 1, "waiting": 0}
    scheme, kid, signature = done["signature"].split(":")
    assert (scheme, len(base64.b64decode(signature))) == ("ed25519", 64)
    installation = json.loads((service.objects / ".snapshed" / "installation.json").read_text())
    assert installation["receipt_key"]["kid"] == kid
    key = load_pem_public_key(installation["receipt_key"]["public_pem"].encode())
    unsigned = {name: value for name, value in done.items() if name != "signature"}
    text = json.dumps(unsigned, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    key.verify(base64.b64decode(signature), text)  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
    stored = json.loads((service.objects / ".snapshed" / "receipts" / f"{receipt['id']}.json").read_text())
    assert stored == done


def test_comparisons_masks_and_decisions_go_with_either_side(service: Service, project: Project) -> None:
    base = project.snapshot({"a.png": png("before")}, head_sha=commit_sha("b"))
    head = project.snapshot({"a.png": png("after")}, head_sha=commit_sha("h"), base_sha=commit_sha("b"))
    service.compare()
    approve = f"/api/0/organizations/main/preprodartifacts/{base}/approve/"
    assert project.ask("POST", approve, json={"feature_type": "snapshots"}).status_code == 201
    mask = project.details(head)["changed"][0]["diff_image_key"]
    ((key,),) = service.rows(f"SELECT storage_key FROM blob WHERE id = '{mask}'")
    receipt = project.delete(base)
    assert receipt["rows"] == {"snapshots": 1, "snapshot_images": 1, "comparisons": 1, "approvals": 1}
    assert {kind: receipt["objects"][kind]["released"] for kind in KINDS} == {
        "image": 1,
        "manifest": 1,
        "comparison": 1,
        "mask": 1,
        "thumbnail": 0,
        "archive": 0,
    }
    assert (service.objects / key).is_file()
    service.settle()
    assert not (service.objects / key).exists()
    assert project.receipt(receipt["id"])["state"] == "complete"
    assert exists(project, head)


def test_the_same_request_id_is_answered_with_the_same_receipt(project: Project) -> None:
    first, second = (project.snapshot({"a.png": png(f"request {number}")}) for number in range(2))
    receipt = project.delete(first, request_id="job-1")
    again = project.order({"snapshots": [str(first)], "request_id": "job-1"})
    assert (again.status_code, again.json()["id"]) == (202, receipt["id"])
    # The id is what counts: a client that repeats it with another target has made a mistake and deletes nothing.
    other = project.order({"snapshots": [str(second)], "request_id": "job-1"})
    assert other.json()["id"] == receipt["id"]
    assert exists(project, second)


def test_a_snapshot_named_twice_is_deleted_once(project: Project) -> None:
    number = project.snapshot({"a.png": png("twice")})
    receipt = project.order({"snapshots": [str(number), number]}).json()
    assert receipt["snapshots"] == [str(number)]


# --- Nothing at all is deleted -------------------------------------------------------------------------------------------


def _refused(project: Project, number: int) -> list[tuple[str, Any, int]]:
    here = str(number)
    return [
        ("no target", {}, 400),
        ("only a project", {"project": project.slug}, 400),
        ("unknown field", {"snapshots": [here], "snapshot": here}, 400),
        ("misspelt dry run", {"snapshots": [here], "dryrun": True}, 400),
        ("two targets", {"snapshots": [here], "project": project.slug, "everything": True}, 400),
        ("filter and everything", {"project": project.slug, "filter": {"app_id": "web"}, "everything": True}, 400),
        ("snapshots of a project", {"snapshots": [here], "project": project.slug}, 400),
        ("no snapshots", {"snapshots": []}, 400),
        ("snapshots no list", {"snapshots": here}, 400),
        ("no ids", {"snapshots": [None]}, 400),
        ("a truth", {"snapshots": [True]}, 400),
        ("a fraction", {"snapshots": [1.0]}, 400),
        ("negative", {"snapshots": ["-1"]}, 400),
        ("words", {"snapshots": ["all"]}, 400),
        ("too many", {"snapshots": [here] * 1001}, 400),
        ("unknown id", {"snapshots": ["999999"]}, 404),
        ("known and unknown", {"snapshots": [here, "999999"]}, 404),
        ("huge id", {"snapshots": [here, "9" * 40]}, 404),
        ("empty filter", {"project": project.slug, "filter": {}}, 400),
        ("filter of nothing", {"project": project.slug, "filter": {"app_id": None}}, 400),
        ("filter of empty text", {"project": project.slug, "filter": {"app_id": ""}}, 400),
        ("unknown filter", {"project": project.slug, "filter": {"app": "web"}}, 400),
        ("known and unknown filter", {"project": project.slug, "filter": {"app_id": "web", "sha": "x"}}, 400),
        ("filter no object", {"project": project.slug, "filter": "app_id=web"}, 400),
        ("filter without project", {"filter": {"app_id": "web"}}, 400),
        ("unreadable time", {"project": project.slug, "filter": {"older_than": "yesterday"}}, 400),
        ("endless time", {"project": project.slug, "filter": {"older_than": "999999w"}}, 400),
        ("not everything", {"project": project.slug, "everything": False}, 400),
        ("everything in a word", {"project": project.slug, "everything": "yes"}, 400),
        ("everything of nothing", {"everything": True}, 400),
        ("unknown project", {"project": "absent", "everything": True}, 404),
        ("unspeakable project", {"project": "a\0b", "everything": True}, 400),
        ("reason no text", {"snapshots": [here], "reason": 7}, 400),
        ("reason with NUL", {"snapshots": [here], "reason": "a\0b"}, 400),
        ("reason with half a letter", {"snapshots": [here], "reason": "\ud83d"}, 400),
        ("reason too long", {"snapshots": [here], "reason": "x" * 1001}, 400),
        ("request id no text", {"snapshots": [here], "request_id": 7}, 400),
        ("urgent in a word", {"snapshots": [here], "urgent": "yes"}, 400),
        ("dry run in a word", {"snapshots": [here], "dry_run": "yes"}, 400),
        ("plan of another target", {"snapshots": [here], "plan": "0" * 64}, 409),
        ("no object", [], 400),
        ("no JSON", b"{", 400),
        ("nothing", b"", 400),
        ("deep", b"[" * 100_000, 400),
        ("too large", b" " * (2**20 + 1), 413),
    ]


def test_an_order_that_is_not_right_deletes_nothing_at_all(service: Service, project: Project) -> None:
    number = project.snapshot({"a.png": png("untouched")})
    service.settle()
    before = service.kept(), service.rows("SELECT count(*) FROM deletion")
    for name, document, status in _refused(project, number):
        answer = project.order(document)
        assert answer.status_code == status, (name, answer.text)
        assert answer.json()["detail"], name
    assert exists(project, number)
    service.settle()
    assert (service.kept(), service.rows("SELECT count(*) FROM deletion")) == before


def test_a_snapshot_that_another_deletion_has_taken_is_unknown(project: Project) -> None:
    gone, here = project.snapshot({"a.png": png("taken")}), project.snapshot({"a.png": png("left")})
    project.delete(gone)
    assert project.order({"snapshots": [str(gone), str(here)]}).status_code == 404
    assert exists(project, here)


def test_urgent_needs_an_administrator(service: Service, project: Project) -> None:
    number = project.snapshot({"a.png": png("urgent")})
    deleter = project.seen_with(service.token("delete"))
    assert deleter.order({"snapshots": [str(number)], "urgent": True}).status_code == 403
    assert deleter.order({"snapshots": [str(number)], "urgent": True, "dry_run": True}).status_code == 403
    assert exists(project, number)
    assert project.order({"snapshots": [str(number)], "urgent": True}).status_code == 202


# --- Preview and plan -----------------------------------------------------------------------------------------------------


def test_a_preview_says_what_would_go_and_changes_nothing(service: Service, project: Project) -> None:
    shared, own = png("preview shared"), png("preview own")
    number = project.snapshot({"shared.png": shared, "own.png": own})
    project.snapshot({"shared.png": shared}, app_id="other")
    service.settle()
    before = service.kept(), service.rows("SELECT count(*) FROM deletion")
    answer = project.order({"snapshots": [str(number)], "dry_run": True, "reason": "looking"})
    assert answer.status_code == 200
    preview = answer.json()
    assert_receipt(preview)
    assert (preview["state"], preview["id"], preview["signature"]) == ("preview", None, None)
    assert len(preview["plan"]) == 64
    assert preview["snapshots"] == [str(number)]
    assert preview["objects"]["image"] == {
        "released": 2,
        "removed": 0,
        "waiting": 1,
        "kept_shared": 1,
        "kept_pinned": 0,
    }
    assert (preview["bytes"]["waiting"] >= len(own), preview["bytes"]["kept_shared"]) == (True, len(shared))
    service.settle()
    assert (service.kept(), service.rows("SELECT count(*) FROM deletion")) == before
    assert exists(project, number)


def test_a_deletion_with_the_plan_of_its_preview_does_what_the_preview_said(service: Service, project: Project) -> None:
    number = project.snapshot({"a.png": png("planned")})
    preview = project.order({"snapshots": [str(number)], "dry_run": True}).json()
    receipt = project.delete(number, plan=preview["plan"])
    assert {kind: counts["released"] for kind, counts in receipt["objects"].items()} == {
        kind: counts["released"] for kind, counts in preview["objects"].items()
    }
    assert receipt["rows"] == preview["rows"]
    service.settle()
    assert project.receipt(receipt["id"])["bytes"]["removed"] == preview["bytes"]["waiting"]


def test_the_plan_of_a_target_that_has_not_changed_stays_the_same(project: Project) -> None:
    order = {"snapshots": [str(project.snapshot({"a.png": png("still")}))], "dry_run": True}
    assert project.order(order).json()["plan"] == project.order(order).json()["plan"]


def test_a_target_that_grew_since_its_preview_is_refused_with_the_difference(project: Project) -> None:
    order = {"project": project.slug, "filter": {"app_id": "web"}}
    number = project.snapshot({"a.png": png("grows")})
    plan = project.order({**order, "dry_run": True}).json()["plan"]
    late = project.snapshot({"a.png": png("came late")})
    answer = project.order({**order, "plan": plan})
    assert answer.status_code == 409
    document = answer.json()
    assert set(document) == {"detail", "plan", "difference"}
    assert document["plan"] != plan
    assert str(late) in json.dumps(document["difference"])
    assert exists(project, number)
    assert exists(project, late)
    assert project.order({**order, "plan": document["plan"]}).status_code == 202


def test_an_image_that_came_to_be_shared_since_the_preview_changes_the_plan(project: Project) -> None:
    images = {"a.png": png("will be shared")}
    number = project.snapshot(images)
    plan = project.order({"snapshots": [str(number)], "dry_run": True}).json()["plan"]
    project.named(images, app_id="other")
    assert project.order({"snapshots": [str(number)], "plan": plan}).status_code == 409
    assert exists(project, number)


# --- Filters -----------------------------------------------------------------------------------------------------------------


def test_a_filter_deletes_what_fits_every_condition_and_nothing_else(service: Service, project: Project) -> None:
    made = {
        (app, branch): project.snapshot({"a.png": png(f"{app} {branch}")}, app_id=app, head_ref=branch)
        for app in ("web", "phone")
        for branch in ("main", "topic")
    }
    elsewhere = service.new_project()
    other = elsewhere.snapshot({"a.png": png("web topic")}, app_id="web", head_ref="topic")
    receipt = project.order({"project": project.slug, "filter": {"app_id": "web", "branch": "topic"}}).json()
    assert_receipt(receipt)
    assert receipt["snapshots"] == [str(made["web", "topic"])]
    assert [number for number in made.values() if exists(project, number)] == [
        number for key, number in made.items() if key != ("web", "topic")
    ]
    assert exists(elsewhere, other)
    by_branch = project.order({"project": project.slug, "filter": {"branch": "main"}}).json()
    assert by_branch["snapshots"] == [str(made["web", "main"]), str(made["phone", "main"])]
    by_app = project.order({"project": str(project.id), "filter": {"app_id": "phone"}}).json()
    assert by_app["snapshots"] == [str(made["phone", "topic"])]


def test_a_filter_by_age_takes_times_and_lengths_of_time(service: Service, project: Project) -> None:
    oldest = project.snapshot({"a.png": png("oldest")})
    service.clock.push(timedelta(days=20))
    older = project.snapshot({"a.png": png("older")})
    between = service.clock.now() + timedelta(days=1)
    service.clock.push(timedelta(days=15))
    newest = project.snapshot({"a.png": png("newest")})
    looked = {
        text: project.order({"project": project.slug, "filter": {"older_than": text}, "dry_run": True}).json()
        for text in ("30d", "10d", "2w", "100d", between.isoformat(), between.strftime("%Y-%m-%dT%H:%M:%S"), "720h")
    }
    both = [str(oldest), str(older)]
    assert {text: preview["snapshots"] for text, preview in looked.items()} == {
        "30d": [str(oldest)],
        "10d": both,
        "2w": both,
        "100d": [],
        between.isoformat(): both,
        between.strftime("%Y-%m-%dT%H:%M:%S"): both,
        "720h": [str(oldest)],
    }
    receipt = project.order({"project": project.slug, "filter": {"older_than": "30d"}}).json()
    assert receipt["snapshots"] == [str(oldest)]
    assert [exists(project, number) for number in (oldest, older, newest)] == [False, True, True]


def test_a_filter_that_fits_nothing_is_a_deletion_of_nothing(service: Service, project: Project) -> None:
    receipt = project.order({"project": project.slug, "filter": {"app_id": "nobody"}}).json()
    assert (receipt["snapshots"], total(receipt, "released")) == ([], 0)
    service.settle()
    assert project.receipt(receipt["id"])["state"] == "complete"


def test_everything_empties_one_project_and_no_other(service: Service, project: Project) -> None:
    numbers = [project.snapshot({"a.png": png(f"everything {number}")}) for number in range(4)]
    other = service.new_project()
    kept = other.snapshot({"a.png": png("everything 0")})
    receipt = project.order({"project": project.slug, "everything": True, "reason": "closing"}).json()
    assert receipt["snapshots"] == [str(number) for number in numbers]
    service.settle()
    assert not {key for key in service.files() if f"/{project.id}/" in key}
    assert exists(other, kept)
    assert other.session().read(png("everything 0")).status_code == 200
    # The project itself is still there, and takes new snapshots.
    assert exists(project, project.snapshot({"a.png": png("everything 0")}))


@pytest.mark.scale
def test_a_large_deletion_hides_everything_at_once_and_is_finished_in_steps(service: Service, project: Project) -> None:
    numbers = [project.snapshot({"a.png": png(f"large {number}")}) for number in range(60)]
    receipt = project.order({"project": project.slug, "everything": True}).json()
    assert_receipt(receipt)
    assert receipt["rows"]["snapshots"] == 60
    assert not any(exists(project, number) for number in numbers)
    session = project.session()
    assert {session.head(png(f"large {number}")) for number in range(60)} == {404}
    service.settle()
    done = project.receipt(receipt["id"])
    assert (done["state"], done["objects"]["image"]["removed"]) == ("complete", 60)


# --- Shared, pinned, gone ----------------------------------------------------------------------------------------------------


def test_a_shared_image_stays_readable_and_an_unshared_one_leaves_the_disk(service: Service, project: Project) -> None:
    shared, own = png("stays"), png("goes")
    number = project.snapshot({"shared.png": shared, "own.png": own})
    other = project.snapshot({"shared.png": shared}, app_id="other")
    service.settle()
    receipt = project.delete(number)
    assert receipt["objects"]["image"]["kept_shared"] == 1
    service.settle()
    done = project.receipt(receipt["id"])
    assert (done["state"], done["objects"]["image"]["removed"], done["objects"]["image"]["kept_shared"]) == (
        "complete",
        1,
        1,
    )
    assert done["bytes"]["kept_shared"] == len(shared)
    assert (len(service.files_of(shared)), service.files_of(own)) == (1, set())
    assert project.session().read(shared).content == shared
    last = project.delete(other)
    service.settle()
    assert service.files_of(shared) == set()
    assert project.receipt(last["id"])["objects"]["image"]["removed"] == 1


def test_a_second_copy_of_an_image_that_lost_against_the_first_is_released_and_removed_with_it(
    service: Service, project: Project
) -> None:
    """Two uploads of the same bytes are two objects for a moment; a deletion answers for both."""
    data = png("two copies")
    first, second = project.session(), project.session()
    first.upload(data)
    second.upload(data)
    assert len(service.files_of(data)) == 2
    receipt = project.delete(project.named({"a.png": data}))
    assert receipt["objects"]["image"]["released"] == 2
    service.clock.push(timedelta(hours=2))
    service.settle()
    done = project.receipt(receipt["id"])
    assert (done["state"], done["objects"]["image"]["removed"]) == ("complete", 2)
    assert service.files_of(data) == set()


def test_the_same_image_in_another_project_is_another_object(service: Service, project: Project) -> None:
    data = png("two projects")
    elsewhere = service.new_project()
    here, there = project.snapshot({"a.png": data}), elsewhere.snapshot({"a.png": data})
    receipt = project.delete(here)
    assert receipt["objects"]["image"] == {
        "released": 1,
        "removed": 0,
        "waiting": 1,
        "kept_shared": 0,
        "kept_pinned": 0,
    }
    service.settle()
    assert len(service.files_of(data)) == 1
    assert elsewhere.details(there)["image_count"] == 1
    assert elsewhere.session().read(data).content == data


def test_from_its_answer_on_nothing_of_a_deletion_can_be_read_through_any_door(
    service: Service, project: Project
) -> None:
    """No worker has run: every byte still stands in the store, and no door shows it."""
    before, after = png("hidden before"), png("hidden after")
    base = project.snapshot({"a.png": before}, head_sha=commit_sha("hb"))
    head = project.snapshot({"a.png": after}, head_sha=commit_sha("hh"), base_sha=commit_sha("hb"))
    service.compare()
    mask = project.details(head)["changed"][0]["diff_image_key"]
    session, told = project.session(), project.session()
    assert told.head(after) == 204
    project.delete(head)
    assert len(service.files_of(after)) == 1

    api = "/api/0/organizations/main/preprodartifacts"
    doors = [
        ("GET", project.snapshot_path(head)),
        ("GET", f"{project.snapshot_path(head)}?compact_metadata=1"),
        ("GET", f"{api}/snapshots/{head}/archive/"),
        ("GET", f"{api}/snapshots/{head}/archive/?download"),
        ("GET", f"{api}/snapshots/{head}/images/a.png/"),
        ("GET", f"{api}/snapshots/{head}/images/{sha(after)}/"),
        ("GET", f"{api}/snapshots/by-commit/?head_sha={commit_sha('hh')}"),
        ("GET", f"/api/0/projects/main/{project.slug}/files/images/{sha(after)}/"),
        ("GET", f"/api/0/projects/main/{project.slug}/files/images/{mask}/"),
        ("POST", f"{api}/{head}/approve/"),
        ("POST", f"{api}/{head}/reject/"),
        ("DELETE", project.snapshot_path(head)),
    ]
    for method, path in doors:
        answer = project.ask(method, path, json={"feature_type": "snapshots"} if method == "POST" else None)
        assert answer.status_code == 404, (method, path)
        assert after not in answer.content
    for uploading in (session, told):
        assert uploading.read(after).status_code == 404
        assert uploading.head(after) == 404
        parts = uploading.batch([Operation("get", sha(after)), Operation("head", sha(after))])
        assert [(part.code, part.body) for part in parts] == [(404, b""), (404, b"")]
    assert sha(after) not in json.dumps(project.details(base))
    # Pages too, with a browser's own cookie.
    with service.signed_in(project.token) as browser:
        assert browser.get(f"/snapshots/{base}").status_code == 200
        for path in (f"/snapshots/{head}", f"/images/{project.id}/{sha(after)}", f"/images/{project.id}/{mask}"):
            answer = browser.get(path)
            assert (answer.status_code, after in answer.content) == (404, False), path
        assert f'"/snapshots/{head}"' not in browser.get("/").text
    assert sha(before) in json.dumps(project.details(base))
    assert told.head(before) == 204


def test_a_pin_keeps_a_deletion_removing_until_the_session_ends(service: Service, project: Project) -> None:
    data = png("pinned")
    number = project.snapshot({"a.png": data})
    session = project.session()
    assert session.head(data) == 204
    receipt = project.delete(number)
    service.settle()
    waiting = project.receipt(receipt["id"])
    assert_receipt(waiting)
    assert waiting["state"] == "removing"
    assert waiting["objects"]["image"]["kept_pinned"] == 1
    assert waiting["bytes"]["kept_pinned"] == len(data)
    ends = datetime.fromisoformat(waiting["pins_end_at"])
    assert timedelta() < ends - service.clock.now() <= timedelta(hours=1)
    assert len(service.files_of(data)) == 1
    service.clock.push(timedelta(hours=1, minutes=1))
    service.settle()
    done = project.receipt(receipt["id"])
    assert (done["state"], done["pins_end_at"], done["objects"]["image"]["removed"]) == ("complete", None, 1)
    assert service.files_of(data) == set()
    assert session.head(data) == 409


def test_a_pinned_image_that_a_new_snapshot_names_is_kept_as_shared(service: Service, project: Project) -> None:
    data = png("pinned and named")
    receipt_of = project.snapshot({"a.png": data})
    session = project.session()
    assert session.head(data) == 204
    receipt = project.delete(receipt_of)
    service.settle()
    project.session()
    assert project.create(manifest_of({"again.png": data})).status_code == 200
    service.settle()
    done = project.receipt(receipt["id"])
    assert (done["state"], done["objects"]["image"]["kept_shared"]) == ("complete", 1)
    assert project.session().read(data).content == data


def test_an_urgent_deletion_ends_the_sessions_whose_pins_are_in_its_way(service: Service, project: Project) -> None:
    data, unrelated = png("urgently"), png("unrelated")
    number = project.snapshot({"a.png": data})
    pinning, bystander = project.session(), project.session()
    assert pinning.head(data) == 204
    bystander.upload(unrelated)
    receipt = project.delete(number, urgent=True)
    service.settle()
    done = project.receipt(receipt["id"])
    assert (done["state"], done["urgent"]) == ("complete", True)
    assert service.files_of(data) == set()
    assert pinning.head(data) == 409
    assert bystander.head(unrelated) == 204


def test_an_urgent_deletion_stops_a_session_that_uploads_the_same_image_meanwhile(
    service: Service, project: Project
) -> None:
    data = png("uploaded meanwhile")
    number = project.snapshot({"a.png": data})
    receipt = project.delete(number, urgent=True)
    late = project.session()
    late.upload(data)
    service.settle()
    assert project.receipt(receipt["id"])["state"] == "complete"
    assert late.read(data).status_code in (200, 404, 409)


# --- Looking at deletions ----------------------------------------------------------------------------------------------------------


def test_receipts_are_listed_newest_first_and_found_by_the_snapshot_they_took(
    service: Service, project: Project
) -> None:
    numbers = [project.snapshot({"a.png": png(f"listed {number}")}) for number in range(3)]
    receipts = [project.delete(number)["id"] for number in numbers]
    listed = project.get(project.deletions_path)
    assert [receipt["id"] for receipt in listed][:3] == receipts[::-1]
    for receipt in listed:
        assert_receipt(receipt)
    assert [receipt["id"] for receipt in project.get(f"{project.deletions_path}?snapshot={numbers[1]}")] == [
        receipts[1]
    ]
    assert project.get(f"{project.deletions_path}?snapshot=999999999") == []
    assert len(project.get(f"{project.deletions_path}?limit=2")) == 2
    for query in ("snapshot=x", "limit=0", "limit=1001", f"snapshot={10**30}", "snapshot=-1"):
        assert project.ask("GET", f"{project.deletions_path}?{query}").status_code == 400, query


def test_the_objects_of_a_deletion_are_listed_in_pages(service: Service, project: Project) -> None:
    images = {f"{number}.png": png(f"object {number}") for number in range(7)}
    shared = png("object shared")
    project.snapshot({"shared.png": shared}, app_id="other")
    number = project.snapshot(images | {"shared.png": shared})
    service.settle()
    receipt = project.delete(number)
    path = f"{project.deletions_path}{receipt['id']}/objects"
    found: list[dict[str, Any]] = []
    after, pages = "", 0
    while True:
        answer = project.ask("GET", f"{path}?limit=4{after}")
        assert answer.status_code == 200
        found += answer.json()
        pages += 1
        if "x-next" not in answer.headers:
            break
        after = f"&after={answer.headers['x-next']}"
    assert pages == 3
    assert len(found) == len({item["id"] for item in found}) == 9
    assert sorted(item["digest"] for item in found if item["kind"] == "image") == sorted(
        map(sha, [*images.values(), shared])
    )
    assert {(item["kind"], item["outcome"]) for item in found} == {
        ("image", "waiting"),
        ("image", "kept_shared"),
        ("manifest", "waiting"),
    }
    assert {item["removed_at"] for item in found} == {None}
    service.settle()
    done = project.get(path)
    assert {(item["kind"], item["outcome"]) for item in done} == {
        ("image", "removed"),
        ("image", "kept_shared"),
        ("manifest", "removed"),
    }
    assert all((item["removed_at"] is None) == (item["outcome"] == "kept_shared") for item in done)
    assert all(set(item) >= {"kind", "digest", "bytes", "outcome", "released_at", "removed_at"} for item in done)
    assert sum(item["bytes"] for item in done if item["kind"] == "image") == sum(map(len, [*images.values(), shared]))


def test_a_receipt_is_verified_against_its_signature_and_the_store(service: Service, project: Project) -> None:
    data = png("verified")
    receipt = project.delete(project.snapshot({"a.png": data}))
    (key,) = service.files_of(data)
    path = f"{project.deletions_path}{receipt['id']}/verification"
    assert project.get(path)["signed"] is False
    service.settle()
    assert project.get(path) == {"signed": True, "asked": 2, "standing": []}
    # Somebody puts a removed object back behind our back: asking again says so.
    (service.objects / key).parent.mkdir(parents=True, exist_ok=True)
    (service.objects / key).write_bytes(data)
    try:
        assert project.get(path) == {"signed": True, "asked": 2, "standing": [key]}
    finally:
        (service.objects / key).unlink()


@pytest.mark.parametrize("name", ["x", "00000000-0000-0000-0000-000000000000", "%00", "1"])
def test_a_deletion_that_is_not_there_is_not_found(project: Project, name: str) -> None:
    for tail in ("/", "/objects", "/verification"):
        answer = project.ask("GET", f"{project.deletions_path}{name}{tail}")
        assert (answer.status_code, answer.json()) == (404, {"detail": "Deletion not found"})


def test_a_deletion_holds_while_the_store_is_down_and_says_so(tmp_path: Path) -> None:
    with running(tmp_path / "data") as service:
        project = service.new_project()
        data = png("store down")
        number = project.snapshot({"a.png": data})
        aside = service.objects.with_name("aside")
        service.objects.rename(aside)
        service.objects.write_bytes(b"")  # no folder, so that nothing can be stored in it
        try:
            receipt = project.delete(number)
            gone = project.ask("GET", project.snapshot_path(number)).status_code
        finally:
            service.objects.unlink()
            aside.rename(service.objects)
        assert (receipt["journaled_at"], receipt["state"], gone) == (None, "removing", 404)
        assert len(service.files_of(data)) == 1
        service.settle()
        done = project.receipt(receipt["id"])
        assert done["state"] == "complete"
        assert done["journaled_at"] is not None
        assert service.files_of(data) == set()


def test_an_object_that_cannot_be_removed_is_shown_retried_and_delays_no_other(
    service: Service, project: Project
) -> None:
    """Something stands where the object should be unlinked: the receipt says so, and every other object goes."""
    stuck, easy = png("stuck"), png("easy")
    number = project.snapshot({"stuck.png": stuck, "easy.png": easy})
    (key,) = service.files_of(stuck)
    receipt = project.delete(number)
    file = service.objects / key
    file.unlink()
    file.mkdir()
    service.settle()
    waiting = project.receipt(receipt["id"])
    assert_receipt(waiting)
    assert waiting["state"] == "removing"
    assert service.files_of(easy) == set()
    assert waiting["objects"]["image"] == {
        "released": 2,
        "removed": 1,
        "waiting": 1,
        "kept_shared": 0,
        "kept_pinned": 0,
    }
    (failure,) = waiting["failures"]
    assert set(failure) == {"kind", "class", "attempts", "last_error", "next_attempt_at"}
    assert (failure["kind"], failure["attempts"]) == ("image", 1)
    assert str(service.objects) not in failure["last_error"]
    assert sha(stuck) not in failure["last_error"]
    file.rmdir()
    service.clock.push(timedelta(minutes=16))
    service.settle()
    done = project.receipt(receipt["id"])
    assert (done["state"], done["failures"]) == ("complete", [])


def test_deleting_while_the_same_images_are_uploaded_again_never_makes_a_hole(
    service: Service, project: Project
) -> None:
    images = {f"{number}.png": png(f"race {number}") for number in range(20)}
    for _ in range(5):
        number = project.snapshot(images)
        session = project.session()
        heads = {name: session.head(data) for name, data in images.items()}
        assert set(heads.values()) == {204}
        project.delete(number)
        service.step("condemn")
        service.step("remove")
        answer = project.create(
            {"app_id": "web", "images": {name: entry(data) for name, data in images.items()}, "head_ref": str(number)}
        )
        assert answer.status_code == 200, answer.text
        again = project.session()
        for data in images.values():
            assert again.read(data).content == data
        service.settle()
        service.clock.push(timedelta(minutes=11))
