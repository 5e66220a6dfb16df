"""What somebody with a token of their own and bad intentions gets: nothing of anybody else's, and nothing that breaks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from api_fixtures import Project, Service, commit_sha, frames, png, running

OURS = {"head_repo_name": "acme/web", "base_repo_name": "acme/web"}
FORK = {"head_repo_name": "mallory/web", "base_repo_name": "acme/web"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("hostile") / "data") as service:
        yield service


@pytest.fixture
def project(service: Service) -> Project:
    return service.new_project()


def approve(project: Project, number: int) -> None:
    path = f"/api/0/organizations/main/preprodartifacts/{number}/approve/"
    assert project.ask("POST", path, json={"feature_type": "snapshots"}).status_code == 201


def test_a_fork_is_neither_a_base_of_ours_nor_approved_by_what_we_approved(service: Service, project: Project) -> None:
    """A fork has all our commits, and may number its pull request as it likes. Its repository is not ours."""
    base, new = commit_sha("main"), png("new")
    ours = project.snapshot({"a.png": png("old")}, head_sha=base, head_repo_name="acme/web")
    project.snapshot({"a.png": new}, head_sha=base, head_repo_name="mallory/web")  # newer, of the same commit
    pull: dict[str, Any] = {"base_sha": base, "pr_number": 7}
    mine = project.snapshot({"a.png": new}, head_sha=commit_sha("mine"), **pull, **OURS)
    service.compare()
    assert project.details(mine)["base_artifact_id"] == str(ours)
    assert project.details(mine)["verdict"] == "changed"
    approve(project, mine)
    theirs = project.snapshot({"a.png": new}, head_sha=commit_sha("theirs"), **pull, **FORK)
    again = project.snapshot({"a.png": new}, head_sha=commit_sha("again"), **pull, **OURS)
    service.compare()
    assert project.details(theirs)["verdict"] == "changed"
    assert project.details(again)["verdict"] == "approved"
    fork = project.seen_with(service.token("upload", name="fork"))
    path = f"/api/0/organizations/main/preprodartifacts/{theirs}/approve/"
    assert fork.ask("POST", path, json={"feature_type": "snapshots"}).status_code == 403


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"app_id": "web", "images": {"a.png": ' + b'{"x": ' * 20_000 + b"1" + b"}" * 20_002,
        b'{"app_id": "web", "images": {}, "head_sha": "' + b"a" * 40 + b'", "pr_number": 1' + b"0" * 5000 + b"}",
        b'{"app_id": "w\\u0000eb", "images": {}}',
        b'{"app_id": "\\ud800", "images": {}}',
        b"\xff\xfe{}",
    ],
    ids=["deep list", "deep object", "huge number", "nul", "half a character", "not utf-8"],
)
def test_a_hostile_manifest_is_refused_at_every_door_and_leaves_nothing(
    service: Service, project: Project, body: bytes
) -> None:
    query = {"group": "hostile", "shards": "2"}
    options = project.ask("GET", f"{project.snapshots_path}upload-options/", params=query).json()["objectstore"]
    before = service.kept()
    packed = {"content-encoding": "zstd"}
    shard = {"x-os-auth": f"Bearer {options['authToken']}"}
    answers = [
        project.create(body),
        project.create(frames(body), headers=packed),
        project.ask("PUT", f"{project.snapshots_path}shards/1/", content=body, headers=shard),
        project.order(body),
    ]
    for answer in answers:
        assert answer.status_code == 400, answer.text
        assert len(answer.json()["detail"]) < 1000
    assert service.kept() == before
    assert service.rows("SELECT count(*) FROM shard") == [(0,)]


@pytest.mark.parametrize("key", ["", "a" * 256, "a\nb", "\u202egroup"])
def test_a_group_that_cannot_be_shown_is_refused(project: Project, key: str) -> None:
    query = {"group": key, "shards": "2"}
    assert project.ask("GET", f"{project.snapshots_path}upload-options/", params=query).status_code == 400


@pytest.mark.parametrize("shards", ["", "0", "-1", "1001", "99999", "２", "1.5"])
def test_a_number_of_shards_that_is_none_is_refused(project: Project, shards: str) -> None:
    query = {"group": "key", "shards": shards}
    assert project.ask("GET", f"{project.snapshots_path}upload-options/", params=query).status_code == 400
