"""The unmodified `sentry-cli` against the server: what it uploads, what it says, and what it leaves when it fails."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from api_fixtures import Kept, Project, Service, clean_environment, commit_sha, png, running, sha

PROGRAM = Path(sys.executable).with_name("sentry-cli")
BASE, HEAD = commit_sha("base"), commit_sha("head")
REPO = ["--head-repo-name=acme/web", "--base-repo-name=acme/web", "--vcs-provider=github"]

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="sentry-cli comes with the development dependencies")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("cli") / "data") as service:
        yield service


@pytest.fixture
def project(service: Service) -> Project:
    made = service.new_project()
    return made.seen_with(service.token("upload", "delete", project=made.slug, name="ci"))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "shots"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@dataclass(frozen=True)
class Run:
    """What one run of the program came to."""

    status: int
    said: str

    @property
    def number(self) -> int:
        found = re.search(r"Created snapshot (\d+) with (\d+) image", self.said)
        assert found, self.said
        return int(found[1])


def upload(project: Project, folder: Path, *flags: str, app: str = "web", **environ: str) -> Run:
    """`sentry-cli snapshots upload` with nothing but a token, a project and flags."""
    command = [PROGRAM, "snapshots", "upload", folder, "--app-id", app, "--no-git-metadata", *flags]
    # The token carries server and organization; a folder of its own keeps foreign settings out.
    settings = {"SENTRY_AUTH_TOKEN": project.token, "SENTRY_PROJECT": project.slug, "HOME": str(folder.parent)}
    done = subprocess.run(
        list(map(str, command)),
        env=clean_environment(**(settings | environ)),
        cwd=folder.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return Run(done.returncode, done.stdout + done.stderr)


def fill(folder: Path, images: Mapping[str, bytes]) -> None:
    for name, data in images.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def assert_holds(project: Project, number: int, images: Mapping[str, bytes]) -> None:
    """The snapshot names exactly these images, and each is in the store as it was on the client's disk."""
    document = project.details(number)
    assert {image["image_file_name"]: image["key"] for image in document["images"]} == {
        name: sha(data) for name, data in images.items()
    }
    stored = project.service.files()
    by_digest = {key.rsplit("/", 1)[1].partition(".")[0]: key for key in stored if f"/{project.id}/" in key}
    for data in images.values():
        assert (project.service.objects / by_digest[sha(data)]).read_bytes() == data


# --- Uploading -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 5, 200])
def test_a_folder_of_images_becomes_a_snapshot(project: Project, folder: Path, count: int) -> None:
    images = {f"page {number % 7}/shot-{number:03}.png": png(f"{count} {number}") for number in range(count)}
    fill(folder, images)
    run = upload(project, folder)
    assert run.status == 0, run.said
    assert f"Uploaded {count} new image file" in run.said
    assert "View snapshots at http://127.0.0.1:" in run.said
    assert_holds(project, run.number, images)


def test_an_image_too_large_for_a_batch_travels_alone(project: Project, folder: Path) -> None:
    images = {
        "small.png": png("small"),
        "large.png": png("large", at_least=3 * 2**20),
        "last in a batch.png": png("edge", at_least=1_044_496),
        "first alone.png": png("over the edge", at_least=1_044_497),
    }
    assert [len(data) for data in images.values()][2:] == [1_044_496, 1_044_497]
    fill(folder, images)
    run = upload(project, folder)
    assert run.status == 0, run.said
    assert_holds(project, run.number, images)


def test_the_same_image_under_many_names_is_uploaded_once_and_named_often(project: Project, folder: Path) -> None:
    images = {f"{number}.png": png("same") for number in range(30)}
    fill(folder, images)
    run = upload(project, folder)
    assert run.status == 0, run.said
    assert_holds(project, run.number, images)
    project.service.settle()
    assert len(project.service.files_of(png("same"))) == 1


def test_a_second_run_uploads_nothing(project: Project, folder: Path) -> None:
    images = {f"{number}.png": png(f"again {number}") for number in range(25)}
    fill(folder, images)
    first = upload(project, folder, f"--head-sha={BASE}")
    second = upload(project, folder, f"--head-sha={HEAD}")
    assert (first.status, second.status) == (0, 0)
    assert re.search(r"25 of 25 images already uploaded", second.said), second.said
    assert second.number != first.number
    assert_holds(project, second.number, images)


def test_only_new_images_are_uploaded(project: Project, folder: Path) -> None:
    images = {f"{number}.png": png(f"old {number}") for number in range(10)}
    fill(folder, images)
    assert upload(project, folder).status == 0
    images["fresh.png"] = png("fresh")
    fill(folder, images)
    run = upload(project, folder)
    assert re.search(r"10 of 11 images already uploaded, uploading 1 new", run.said), run.said
    assert_holds(project, run.number, images)


def test_images_of_a_deleted_snapshot_are_uploaded_anew(project: Project, folder: Path) -> None:
    images = {f"{number}.png": png(f"deleted {number}") for number in range(10)}
    fill(folder, images)
    project.delete(upload(project, folder).number)
    run = upload(project, folder)
    assert run.status == 0, run.said
    assert "already uploaded" not in run.said
    project.service.settle()
    assert_holds(project, run.number, images)


def test_whatever_was_uploaded_goes_without_a_trace_when_it_is_deleted(project: Project, folder: Path) -> None:
    fill(folder, {f"{number}.png": png(f"trace {number}") for number in range(40)})
    receipt = project.delete(upload(project, folder).number)
    project.service.settle()
    done = project.receipt(receipt["id"])
    assert (done["state"], done["objects"]["image"]["removed"]) == ("complete", 40)
    assert not {key for key in project.service.files() if f"/{project.id}/" in key}


def test_every_token_tells_the_client_its_server_and_organization(project: Project, folder: Path) -> None:
    """The client reads both out of the token, and only if its secret is plain base64: three random ones of four would
    not be, if they were made of the URL-safe letters."""
    for _ in range(40):
        fresh = project.seen_with(project.service.token("upload", project=project.slug))
        assert upload(fresh, folder).status == 0, fresh.token


# --- What it says about the images ----------------------------------------------------------------------------------------


def test_sidecar_metadata_arrives_with_its_image(project: Project, folder: Path) -> None:
    fill(folder, {"home.png": png("home", 12, 9), "plain.png": png("plain")})
    told = {
        "display_name": "Home – größer",
        "group": "pages",
        "description": "The first page",
        "tags": {"os": "linux", "theme": "dark"},
        "canvas_theme": "dark",
        "diff_threshold": 0.05,
        "custom": {"nested": [1, 2, 3]},
        "width": 99999,
        "content_hash": "a lie",
    }
    (folder / "home.json").write_text(json.dumps(told))
    run = upload(project, folder)
    assert run.status == 0, run.said
    images = {image["image_file_name"]: image for image in project.details(run.number)["images"]}
    for field in ("display_name", "group", "description", "tags", "canvas_theme", "diff_threshold", "custom"):
        assert images["home.png"][field] == told[field], field
    assert (images["home.png"]["width"], images["home.png"]["height"]) == (12, 9)
    assert images["home.png"]["key"] == sha(png("home", 12, 9))
    assert images["plain.png"]["display_name"] is None


def test_flags_about_the_commit_arrive(project: Project, folder: Path) -> None:
    fill(folder, {"a.png": png("commit")})
    run = upload(
        project,
        folder,
        f"--head-sha={HEAD}",
        f"--base-sha={BASE}",
        "--head-ref=topic/ä",
        "--base-ref=main",
        "--pr-number=12",
        "--diff-threshold=0.02",
        *REPO,
    )
    assert run.status == 0, run.said
    document = project.details(run.number)
    assert document["diff_threshold"] == 0.02
    assert document["vcs_info"] == {
        "head_sha": HEAD,
        "base_sha": BASE,
        "provider": "github",
        "head_repo_name": "acme/web",
        "base_repo_name": "acme/web",
        "head_ref": "topic/ä",
        "base_ref": "main",
        "pr_number": 12,
    }


def test_a_threshold_of_everything_is_refused_in_our_words(project: Project, folder: Path) -> None:
    fill(folder, {"a.png": png("threshold")})
    run = upload(project, folder, "--diff-threshold=1")
    assert run.status == 1
    assert "less than 1" in run.said


# --- Comparing --------------------------------------------------------------------------------------------------------------

OF_BASE = [f"--head-sha={BASE}", "--head-ref=main", *REPO]
OF_HEAD = [f"--head-sha={HEAD}", f"--base-sha={BASE}", "--head-ref=topic", "--base-ref=main", *REPO]


@pytest.mark.parametrize("order", ["base first", "head first"])
def test_base_and_head_are_compared_in_whichever_order_they_come(project: Project, tmp_path: Path, order: str) -> None:
    base, head = tmp_path / "base", tmp_path / "head"
    fill(base, {"same.png": png("same"), "changed.png": png("before"), "gone.png": png("gone")})
    fill(head, {"same.png": png("same"), "changed.png": png("after"), "new.png": png("new")})
    jobs = [(base, OF_BASE), (head, OF_HEAD)]
    if order == "head first":
        jobs.reverse()
    numbers = {folder.name: upload(project, folder, *flags).number for folder, flags in jobs}
    assert project.service.compare() == 1
    document = project.details(numbers["head"])
    assert (document["comparison_type"], document["base_artifact_id"]) == ("diff", str(numbers["base"]))
    assert [document[f"{name}_count"] for name in ("changed", "added", "removed", "unchanged")] == [1, 1, 1, 1]


def test_a_selective_upload_skips_what_it_leaves_out(project: Project, tmp_path: Path) -> None:
    base, head = tmp_path / "base", tmp_path / "head"
    fill(base, {"a.png": png("a"), "b.png": png("b"), "gone.png": png("gone")})
    fill(head, {"a.png": png("a2")})
    assert upload(project, base, *OF_BASE).status == 0
    run = upload(project, head, *OF_HEAD, "--selective")
    assert run.status == 0, run.said
    listed = upload(project, head, *OF_HEAD, "--all-image-file-names=a.png,b.png")
    assert listed.status == 0, listed.said
    names = tmp_path / "names"
    names.write_text("./a.png\nb.png\n\n")
    from_file = upload(project, head, *OF_HEAD, f"--all-image-file-names-file={names}", app="web")
    assert from_file.status == 0, from_file.said
    project.service.compare()
    told = [
        [project.details(number)[f"{name}_count"] for name in ("changed", "skipped", "removed")]
        for number in (run.number, listed.number, from_file.number)
    ]
    assert told == [[1, 2, 0], [1, 1, 1], [1, 1, 1]]


# --- When it fails ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def before(project: Project) -> Kept:
    project.service.settle()
    return project.service.kept()


def assert_nothing_left(project: Project, before: Kept) -> None:
    project.service.settle()
    assert project.service.kept() == before


def test_a_wrong_token_is_told_and_leaves_nothing(project: Project, folder: Path, before: Kept) -> None:
    fill(folder, {"a.png": png("wrong token")})
    wrong = project.seen_with(project.token[:-6] + "AAAAAA")
    run = upload(wrong, folder)
    assert run.status == 1
    assert "Invalid token" in run.said
    assert "401" in run.said
    assert_nothing_left(project, before)


def test_an_unknown_project_is_told_and_leaves_nothing(project: Project, folder: Path, before: Kept) -> None:
    fill(folder, {"a.png": png("unknown project")})
    run = upload(project, folder, SENTRY_PROJECT="no-such-project")
    assert run.status == 1
    assert "Project not found" in run.said
    assert_nothing_left(project, before)


def test_a_token_of_another_project_is_told_the_same(
    service: Service, project: Project, folder: Path, before: Kept
) -> None:
    fill(folder, {"a.png": png("other project")})
    run = upload(project, folder, SENTRY_PROJECT=service.new_project().slug)
    assert run.status == 1
    assert "Project not found" in run.said
    assert_nothing_left(project, before)


def test_a_token_that_may_only_read_is_told_what_it_lacks(
    service: Service, project: Project, folder: Path, before: Kept
) -> None:
    fill(folder, {"a.png": png("read only")})
    run = upload(project.seen_with(service.token("read", project=project.slug)), folder)
    assert run.status == 1
    assert "needs the scope upload" in run.said
    assert_nothing_left(project, before)


def test_an_empty_folder_is_no_failure_and_asks_nothing(project: Project, folder: Path, before: Kept) -> None:
    run = upload(project, folder)
    assert (run.status, "No image files found" in run.said) == (0, True)
    assert_nothing_left(project, before)


def test_an_image_larger_than_the_server_takes_fails_the_run_and_leaves_nothing_for_long(tmp_path: Path) -> None:
    with running(tmp_path / "data", SNAPSHED_MAX_FILE="2 MiB") as service:
        project = service.new_project()
        folder = tmp_path / "shots"
        fill(folder, {"small.png": png("small"), "large.png": png("too large", at_least=2 * 2**20 + 1)})
        run = upload(project, folder)
        assert run.status == 1
        assert "Failed to upload 1 image" in run.said
        assert service.rows("SELECT count(*) FROM artifact") == [(0,)]
        # What did arrive goes with its session, which `running` proves at its end.


# --- In numbers ---------------------------------------------------------------------------------------------------------------


@pytest.mark.scale
def test_three_thousand_small_images_arrive(project: Project, folder: Path) -> None:
    images = {f"{number // 100}/{number}.png": png(f"many {number}") for number in range(3000)}
    fill(folder, images)
    run = upload(project, folder)
    assert run.status == 0, run.said
    assert project.details(run.number)["image_count"] == 3000
    again = upload(project, folder, f"--head-sha={HEAD}")
    assert "3000 of 3000 images already uploaded" in again.said
    for number in (run.number, again.number):
        receipt = project.delete(number)
    project.service.settle()
    done = project.receipt(receipt["id"])
    assert (done["state"], done["objects"]["image"]["removed"]) == ("complete", 3000)


@pytest.mark.scale
def test_two_hundred_and_thirty_megabytes_arrive_in_parallel_batches(project: Project, folder: Path) -> None:
    images = {f"{number}.png": png(f"big {number}", at_least=1_000_000) for number in range(230)}
    fill(folder, images)
    run = upload(project, folder)
    assert run.status == 0, run.said
    assert_holds(project, run.number, images)
    project.delete(run.number)
    project.service.settle()
    assert not {key for key in project.service.files() if f"/{project.id}/" in key}


# --- Downloading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chosen_by", ["app", "snapshot"])
def test_what_was_uploaded_is_downloaded(project: Project, folder: Path, tmp_path: Path, chosen_by: str) -> None:
    images = {f"page {number}/shot.png": png(f"download {number}") for number in range(20)}
    fill(folder, images)
    number = upload(project, folder, app=f"app-{chosen_by}").number
    choice = ["--app-id", f"app-{chosen_by}"] if chosen_by == "app" else ["--snapshot-id", str(number)]
    out = tmp_path / "out"
    done = subprocess.run(
        [str(PROGRAM), "snapshots", "download", *choice, "--output", str(out)],
        env=clean_environment(
            SENTRY_AUTH_TOKEN=project.token, SENTRY_PROJECT=project.slug, HOME=str(tmp_path)
        ),
        cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Downloaded 21 images" in done.stdout + done.stderr
    assert {name: (out / name).read_bytes() for name in images} == images
