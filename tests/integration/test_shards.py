"""Several jobs, one snapshot: whole or not there at all, and it is known who is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_fixtures import Project, Service, Session, commit_sha, manifest_of, png, running
from typer.testing import CliRunner

from snapshed.cli import app


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("shards") / "data") as service:
        yield service


@pytest.fixture
def project(service: Service) -> Project:
    return service.new_project()


def join(project: Project, key: str, shards: int) -> Session:
    query = {"group": key, "shards": str(shards)}
    answer = project.ask("GET", f"{project.snapshots_path}upload-options/", params=query)
    assert answer.status_code == 200, answer.text
    return Session(project, answer.json()["objectstore"]["authToken"])


def hand_in(session: Session, number: int, names: list[str], **fields: Any) -> httpx.Response:
    """Upload the images of one shard and hand in its part."""
    images = {name: png(name) for name in names}
    if images:
        session.upload(*images.values())
    return put(session, number, manifest_of(images, **fields))


def put(session: Session, number: int, manifest: dict[str, Any]) -> httpx.Response:
    path = f"{session.project.snapshots_path}shards/{number}/"
    headers = {"x-os-auth": f"Bearer {session.token}"}
    return session.project.ask("PUT", path, content=json.dumps(manifest).encode(), headers=headers)


def group(project: Project, key: str) -> dict[str, Any]:
    return project.get(f"{project.snapshots_path}group/?key={key}")


def kept_parts(project: Project) -> int:
    """How many parts still say something."""
    said = "SELECT FROM shard WHERE body IS NOT NULL AND session_id = session.id"
    return project.service.rows(f"SELECT count(*) FROM session WHERE project_id = {project.id} AND EXISTS ({said})")[0][
        0
    ]


def test_the_last_shard_makes_the_whole_snapshot_and_no_other_makes_any(service: Service, project: Project) -> None:
    base, head = commit_sha("base"), commit_sha("head")
    waiting = project.snapshot({"a.png": png("a.png")}, head_sha=head, base_sha=base, head_repo_name="x/y")
    for number, names in ((3, ["c.png"]), (1, ["a.png"])):
        answer = hand_in(join(project, "run-1", 3), number, names, head_sha=base, head_repo_name="x/y")
        assert answer.status_code == 202
        assert answer.json()["artifactId"] is None
    assert group(project, "run-1")["missing"] == [2]
    assert (
        project.ask(
            "GET", f"/api/0/organizations/main/preprodartifacts/snapshots/by-commit/?head_sha={base}"
        ).status_code
        == 404
    )
    assert project.details(waiting)["comparison_state"] == "waiting_for_base"  # an unfinished group is no base

    last = hand_in(join(project, "run-1", 3), 2, [], head_sha=base, head_repo_name="x/y")  # had nothing to take
    assert (last.status_code, last.json()["imageCount"]) == (200, 2)
    made = project.details(last.json()["artifactId"])
    assert [image["image_file_name"] for image in made["images"]] == ["a.png", "c.png"]
    assert project.details(waiting)["comparison_state"] == "pending"
    assert group(project, "run-1") == group(project, "run-1") | {
        "state": "committed",
        "missing": [],
        "artifactId": last.json()["artifactId"],
    }


def test_an_unfinished_group_goes_with_its_session_and_says_who_was_missing(service: Service, project: Project) -> None:
    assert hand_in(join(project, "run", 2), 2, ["lonely.png"]).status_code == 202
    assert service.files_of(png("lonely.png"))
    service.clock.push(timedelta(hours=2))
    service.settle()
    assert not service.files_of(png("lonely.png"))
    assert (group(project, "run")["state"], group(project, "run")["missing"]) == ("expired", [1])
    assert kept_parts(project) == 0
    again = join(project, "run", 3)  # a new attempt under the same key is a new group
    assert hand_in(again, 1, ["lonely.png"]).json()["missing"] == [2, 3]


def test_a_shard_may_be_sent_again_and_changes_its_mind_only_before_the_end(service: Service, project: Project) -> None:
    session = join(project, "again", 2)
    assert hand_in(session, 1, ["old.png"]).status_code == 202
    assert hand_in(session, 1, ["new.png"]).status_code == 202
    made = hand_in(session, 2, ["two.png"])
    names = [image["image_file_name"] for image in project.details(made.json()["artifactId"])["images"]]
    assert names == ["new.png", "two.png"]
    repeated = put(session, 1, manifest_of({"new.png": png("new.png")}))
    assert (repeated.status_code, repeated.json()["artifactId"]) == (200, made.json()["artifactId"])
    assert put(session, 1, manifest_of({})).status_code == 409
    service.settle()
    assert not service.files_of(png("old.png"))
    # What the parts said is forgotten, so that a deletion leaves nothing of it; and the repeat brings nothing back.
    project.delete(int(made.json()["artifactId"]))
    assert kept_parts(project) == 0
    assert put(session, 1, manifest_of({"new.png": png("new.png")})).status_code == 409


def test_shards_that_contradict_each_other_are_refused_and_leave_nothing(service: Service, project: Project) -> None:
    session = join(project, "quarrel", 3)
    assert hand_in(session, 1, ["a.png"], head_sha=commit_sha(1)).status_code == 202
    for number, names, fields, said in (
        (2, ["a.png"], {"head_sha": commit_sha(1)}, "is in shard 1 and in shard 2"),
        (2, ["b.png"], {"head_sha": commit_sha(2)}, "different things about head_sha"),
    ):
        answer = hand_in(session, number, names, **fields)
        assert (answer.status_code, said in answer.text) == (409, True), answer.text
    for number in (0, 4):
        assert put(session, number, manifest_of({})).status_code == 400
    assert put(session, 2, manifest_of({"x.png": png("never uploaded")})).json()["missing"]
    assert put(session, 2, {"app_id": "web"}).status_code == 400
    assert group(project, "quarrel")["missing"] == [2, 3]
    query = {"group": "quarrel", "shards": "4"}
    answer = project.ask("GET", f"{project.snapshots_path}upload-options/", params=query)
    assert (answer.status_code, "3 shards, not 4" in answer.text) == (409, True)


def test_shards_that_come_at_the_same_time_make_one_snapshot(service: Service, project: Project) -> None:
    session = join(project, "together", 6)
    images = {number: png(f"together {number}") for number in range(1, 7)}
    session.upload(*images.values())
    with ThreadPoolExecutor(6) as pool:
        answers = list(
            pool.map(lambda item: put(session, item[0], manifest_of({f"{item[0]}.png": item[1]})), images.items())
        )
    assert {answer.status_code for answer in answers} <= {200, 202}
    numbers = {answer.json()["artifactId"] for answer in answers if answer.status_code == 200}
    assert len(numbers) == 1
    assert service.rows(f"SELECT count(*) FROM artifact WHERE project_id = {project.id}") == [(1,)]
    assert project.details(numbers.pop())["image_count"] == 6


def test_a_group_is_closed_by_nobody_but_its_shards(service: Service, project: Project) -> None:
    """Not by a client that guesses its session from its images, not by the session's own token without a shard, and
    not by another token that knows the key."""
    session = join(project, "mine", 2)
    assert hand_in(session, 1, ["mine.png"]).status_code == 202
    whole = manifest_of({"mine.png": png("mine.png")})
    assert project.create(whole).status_code == 409
    assert project.create(whole, headers={"x-os-auth": f"Bearer {session.token}"}).status_code == 400
    stranger = project.seen_with(service.token("upload", name="stranger"))
    assert hand_in(join(stranger, "mine", 2), 2, ["theirs.png"]).json()["missing"] == [1]
    alone = project.session()
    assert put(alone, 1, manifest_of({})).status_code == 404
    done = hand_in(session, 2, ["two.png"])
    assert (done.status_code, done.json()["imageCount"]) == (200, 2)


def test_two_jobs_upload_with_the_command_and_a_third_waits_for_both(
    service: Service, project: Project, tmp_path: Path
) -> None:
    def run(*words: str) -> tuple[int, str]:
        environment = {"SNAPSHED_TOKEN": project.token, "SNAPSHED_URL": service.address}
        done = CliRunner().invoke(app, [*words, "--project", project.slug], env=environment)
        return done.exit_code if not done.exception or isinstance(
            done.exception, SystemExit
        ) else 2, f"{done.output} {done.exception}"

    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / f"{number}.png").write_bytes(png(f"job {number}"))

    def upload(shard: str, folder: str) -> tuple[int, str]:
        common = ["--app-id", "web", "--no-git-metadata", "--group", "cli"]
        return run("upload", str(tmp_path / folder), *common, "--shard", shard)

    status, said = upload("2/2", "2")
    assert (status, "Shard 2 of 2 is handed in; shard 1 is missing." in said) == (0, True), said
    status, said = run("wait", "--group", "cli", "--timeout", "10ms")
    assert (status, "Group cli of 2 shards: shard 1 is missing." in said) == (2, True), said
    status, said = upload("1/2", "1")
    assert (status, "with 2 images" in said) == (0, True), said
    status, said = run("wait", "--group", "cli")
    assert (status, "has no base" in said) == (0, True), said
    assert upload("3/2", "1")[0] == 2
