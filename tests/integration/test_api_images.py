"""One image at a time, the newest base, archives, and the administrators' batch."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator

import pytest
from api_fixtures import Project, Service, commit_sha, png, running, sha

from snapshed.errors import OwnerGone
from snapshed.work import archive

BASE, HEAD = commit_sha("base"), commit_sha("head")
SAME, BEFORE, AFTER = png("same"), png("before", 32, 32), png("after", 32, 32)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("images") / "data") as service:
        yield service


@pytest.fixture
def project(service: Service) -> Project:
    return service.new_project()


@pytest.fixture
def pair(service: Service, project: Project) -> tuple[int, int]:
    """A base and a head with an image of every category."""
    commit = {"head_repo_name": "shop/web", "provider": "github", "head_ref": "main"}
    base = project.snapshot(
        {"same.png": SAME, "a/b.png": BEFORE, "old.png": png("moved"), "gone.png": png("gone")},
        head_sha=BASE, **commit,
    )  # fmt: skip
    head = project.snapshot(
        {"same.png": SAME, "a/b.png": AFTER, "new.png": png("moved"), "more.png": png("more")},
        head_sha=HEAD, base_sha=BASE, **commit,
    )  # fmt: skip
    service.compare()
    assert project.details(head)["comparison_state"] == "success"
    return base, head


def detail(project: Project, number: int, identifier: str) -> dict[str, object]:
    return project.get(f"{project.snapshot_path(number)}images/{identifier}/")


def test_an_image_says_what_became_of_it_by_name_and_by_digest(project: Project, pair: tuple[int, int]) -> None:
    _, head = pair
    changed = detail(project, head, "a/b.png")
    assert changed == detail(project, head, sha(AFTER))
    assert changed["comparison_status"] == "changed"
    assert isinstance(changed["diff_percentage"], float)
    assert changed["diff_percentage"] > 0
    urls = [changed["head_image"]["image_url"], changed["base_image"]["image_url"], changed["diff_image_url"]]  # pyright: ignore[reportIndexIssue]
    head_bytes, base_bytes, mask = (project.ask("GET", str(url)) for url in urls)
    assert head_bytes.content == AFTER
    assert base_bytes.content == BEFORE
    assert mask.headers["content-type"] == "image/png"
    statuses = {name: detail(project, head, name) for name in ("same.png", "new.png", "more.png", "gone.png")}
    assert {name: found["comparison_status"] for name, found in statuses.items()} == {
        "same.png": "unchanged", "new.png": "renamed", "more.png": "added", "gone.png": "removed"
    }  # fmt: skip
    assert statuses["new.png"]["previous_image_file_name"] == "old.png"
    assert statuses["gone.png"]["head_image"] is None
    assert statuses["more.png"]["base_image"] is None
    assert detail(project, head, sha(png("gone"))) == statuses["gone.png"]


def test_an_image_that_is_not_there_is_a_404(project: Project, pair: tuple[int, int]) -> None:
    for identifier in ("nothing.png", sha(b"nothing"), "%00", "old.png/../x"):
        answer = project.ask("GET", f"{project.snapshot_path(pair[1])}images/{identifier}/")
        assert answer.status_code == 404, identifier


def test_bytes_are_served_inert_and_only_while_something_live_names_them(
    service: Service, project: Project, pair: tuple[int, int]
) -> None:
    path = f"/api/0/projects/main/{project.slug}/files/images/{sha(AFTER)}/"
    answer = project.ask("GET", path + "?filename=x%22%0d%0a/shop%C3%A9.png&image_type=preprod_snapshots")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-disposition"] == "inline; filename*=UTF-8''shop%C3%A9.png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "private" in answer.headers["cache-control"]
    assert project.ask("GET", path + "?image_type=other").status_code == 400
    again = project.ask("GET", path, headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304
    other = service.new_project()
    assert other.ask("GET", path.replace(project.slug, other.slug)).status_code == 404
    project.delete(pair[1])
    assert project.ask("GET", path).status_code == 404
    assert project.ask("GET", path, headers={"if-none-match": answer.headers["etag"]}).status_code == 404


def test_the_newest_base_is_the_newest_without_a_base_of_its_own(project: Project, pair: tuple[int, int]) -> None:
    path = "/api/0/organizations/main/preprodartifacts/snapshots/latest-base/"
    found = project.get(f"{path}?app_id=web&project={project.slug}")
    assert found["head_artifact_id"] == str(pair[0])
    assert found["image_count"] == 4
    assert found["vcs_info"]["head_sha"] == BASE
    assert project.ask("GET", found["images"][0]["image_url"]).status_code == 200
    compact = project.get(f"{path}?app_id=web&project={project.slug}&compact_metadata=1&branch=main")
    assert set(compact["images"][0]) == {"display_name", "image_file_name", "group", "description", "image_url"}
    assert project.ask("GET", path).json() == {"detail": "app_id query parameter is required"}
    assert project.ask("GET", f"{path}?app_id=web&project=nothing").status_code == 400
    assert project.ask("GET", f"{path}?app_id=web&project={project.slug}&branch=other").status_code == 404


def test_an_archive_holds_every_image_under_its_name_and_the_manifest(
    service: Service, project: Project, pair: tuple[int, int]
) -> None:
    path = f"{project.snapshot_path(pair[1])}archive/"
    assert project.get(path) == {"ready": True}
    assert project.ask("POST", path).status_code == 202
    project.order({"project": project.slug, "image": sha(SAME)})
    answer = project.ask("GET", f"{path}?download")
    assert answer.headers["content-type"] == "application/zip"
    assert f"snapshot_images_{pair[1]}.zip" in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as found:
        assert found.testzip() is None
        assert found.namelist() == ["a/b.png", "more.png", "new.png", "manifest.json"], "without the withdrawn one"
        assert found.read("a/b.png") == AFTER
        assert set(json.loads(found.read("manifest.json"))["images"]) == {"same.png", "a/b.png", "new.png", "more.png"}
    service.settle()
    assert project.get(f"{project.deletions_path}?snapshot={pair[1]}")[0]["state"] == "complete"


def test_a_download_breaks_off_when_its_snapshot_is_deleted(service: Service, project: Project) -> None:
    number = project.snapshot({"a.png": png("first"), "b.png": png("second")})
    pieces = archive.pieces(service.resources, [project.id], number)
    assert png("first") in next(pieces)
    project.delete(number)
    service.settle()
    with pytest.raises(OwnerGone):
        list(pieces)


def test_administrators_delete_a_batch_of_what_is_there(service: Service, project: Project) -> None:
    path = "/api/0/internal/preprod-artifact/batch-delete/"
    first, build = project.snapshot({"a.png": png("batch")}), project.build(b"batch")
    answer = project.ask("DELETE", path, json={"preprod_artifact_ids": [first, build, 999_999_999]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["artifact_ids"] == [str(first), str(build)]
    assert project.ask("DELETE", path, json={"preprod_artifact_ids": [first]}).status_code == 404
    for body in (
        {},
        {"preprod_artifact_ids": "1"},
        {"preprod_artifact_ids": ["x"]},
        {"preprod_artifact_ids": [1] * 101},
    ):
        refused = project.ask("DELETE", path, json=body)
        assert refused.status_code == 400
        assert set(refused.json()) == {"error"}
    deleter = project.seen_with(service.token("delete", project=project.slug))
    assert deleter.ask("DELETE", path, json={"preprod_artifact_ids": [1]}).status_code == 403
    service.settle()
    assert project.receipt(answer.json()["deletion"])["state"] == "complete"
