"""Withdrawals, holds and builds as programs ask for them over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from api_fixtures import Project, Service, png, running, sha


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("artifacts") / "data") as service:
        yield service


@pytest.fixture
def project(service: Service) -> Project:
    return service.new_project()


def test_an_image_is_withdrawn_from_every_snapshot_that_names_it(service: Service, project: Project) -> None:
    secret, other = png("secret"), png("other")
    first = project.snapshot({"page.png": secret, "other.png": other})
    second = project.snapshot({"again.png": secret})
    order = {"project": project.slug, "image": sha(secret), "reason": "a password"}
    shown = project.order(order | {"dry_run": True}).json()
    assert shown["state"] == "preview"
    assert shown["objects"]["image"]["waiting"] == 1
    answer = project.order(order | {"plan": shown["plan"]})
    assert answer.status_code == 202, answer.text
    receipt = answer.json()
    assert receipt["withdrawn_from"] == [str(first), str(second)]
    entries = {entry["image_file_name"]: entry for entry in project.details(first)["images"]}
    assert entries["page.png"]["withdrawn"] is True
    assert "withdrawn" not in entries["other.png"]
    service.settle()
    assert project.receipt(receipt["id"])["state"] == "complete"
    assert not any(name.startswith(sha(secret)) for name in service.files())
    assert [found["id"] for found in project.get(f"{project.deletions_path}?snapshot={second}")] == [receipt["id"]]


@pytest.mark.parametrize(
    ("image", "status"),
    [("", 400), ("abc", 400), (7, 400), (None, 400), (sha(b"never uploaded"), 404)],
)
def test_an_image_that_is_none_or_not_here_is_refused(project: Project, image: object, status: int) -> None:
    before = len(project.get(project.deletions_path))
    answer = project.order({"project": project.slug, "image": image})
    assert answer.status_code == status
    assert len(project.get(project.deletions_path)) == before


def test_an_image_of_another_project_is_not_touched(service: Service, project: Project) -> None:
    shared = png("shared")
    theirs = service.new_project()
    number = theirs.snapshot({"page.png": shared})
    assert project.order({"project": project.slug, "image": sha(shared)}).status_code == 404
    project.snapshot({"page.png": shared})
    assert project.order({"project": project.slug, "image": sha(shared)}).status_code == 202
    service.settle()
    (entry,) = theirs.details(number)["images"]
    assert "withdrawn" not in entry
    assert service.files_of(shared)


def test_a_target_may_not_be_two_things(project: Project) -> None:
    answer = project.order({"project": project.slug, "image": sha(b"x"), "everything": True})
    assert answer.status_code == 400
    assert "exactly one target" in answer.json()["detail"]


def test_a_hold_refuses_the_deletion_and_says_why(service: Service, project: Project) -> None:
    number, other = project.snapshot({"a.png": png("held")}), project.snapshot({"b.png": png("other")})
    placed = project.ask("POST", project.holds_path, json={"snapshot": str(number), "reason": "an audit"})
    assert placed.status_code == 201
    answer = project.order({"snapshots": [str(number), str(other)]})
    assert answer.status_code == 409
    assert f"Snapshot {number} is held (an audit)" in answer.json()["detail"]
    assert project.details(other)
    assert project.ask("DELETE", f"{project.holds_path}{placed.json()['id']}/").status_code == 204
    assert project.order({"snapshots": [str(number), str(other)]}).status_code == 202
    service.settle()


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"snapshot": "1"},
        {"reason": "no snapshot"},
        {"snapshot": "x", "reason": "r"},
        {"snapshot": True, "reason": "r"},
        {"snapshot": "1", "reason": "r", "until": "x"},
        {"snapshot": "1", "reason": 7},
        {"snapshot": "1", "reason": "r\0"},
        {"snapshot": "1", "reason": "r", "ends_at": "soon"},
        {"snapshot": "1", "reason": "r", "ends_at": "2001-01-01"},
    ],
)
def test_a_hold_that_cannot_be_is_refused_in_one_sentence(project: Project, body: object) -> None:
    answer = project.ask("POST", project.holds_path, json=body)
    assert answer.status_code == 400, answer.text
    assert set(answer.json()) == {"detail"}


def test_a_build_is_kept_byte_for_byte_and_served_inert(service: Service, project: Project) -> None:
    page = b"<!doctype html><script>alert(1)</script>" * 50_000
    number = project.build(page, file_name='a"b\u00fc.html', metadata='{"version": "1"}', head_ref="main")
    told = project.get(project.build_path(number))
    assert told["sha256"] == sha(page)
    assert told["size"] == len(page)
    assert told["metadata"] == {"version": "1"}
    answer = project.ask("GET", f"{project.build_path(number)}file")
    assert answer.content == page
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''a%22b%C3%BC.html"
    assert answer.headers["x-content-type-options"] == "nosniff"
    deleted = project.ask("DELETE", project.build_path(number))
    assert deleted.status_code == 204
    assert project.ask("GET", f"{project.build_path(number)}file").status_code == 404
    service.settle()
    assert project.get(deleted.headers["location"])["objects"]["file"]["removed"] == 1


def test_an_empty_file_is_a_build_too(project: Project) -> None:
    number = project.build(b"", file_name="empty.txt")
    assert project.ask("GET", f"{project.build_path(number)}file").content == b""


def test_a_build_without_a_name_is_refused_and_nothing_is_kept(service: Service, project: Project) -> None:
    before = service.files()
    answer = project.ask("POST", project.builds_path + "?app_id=app", content=b"x")
    assert answer.status_code == 400
    assert answer.json()["detail"] == "The field file_name is required."
    assert service.files() == before
