"""Creating and reading snapshots as `sentry-cli` and its kin do: options, every refusal, comparisons, details."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from api_fixtures import (
    Kept,
    Project,
    Service,
    commit_sha,
    entry,
    frames,
    manifest_of,
    png,
    running,
    sha,
    sized,
)

BASE, HEAD = commit_sha("base"), commit_sha("head")
REPO = {"head_repo_name": "acme/web", "base_repo_name": "acme/web", "provider": "github"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("snapshots") / "data") as service:
        yield service


@pytest.fixture
def project(service: Service) -> Project:
    return service.new_project()


# --- Upload options ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["", "?usecase=auto", "?usecase=preprod", "?usecase=snapshots"])
def test_upload_options_have_the_shape_their_clients_read(service: Service, project: Project, query: str) -> None:
    document = project.get(f"{project.snapshots_path}upload-options/{query}")
    assert set(document) == {"objectstore"}
    options = document["objectstore"]
    assert set(options) == {"url", "usecase", "scopes", "authToken", "expirationPolicy"}
    assert options["url"] == service.address
    assert not options["url"].endswith("/")
    assert options["usecase"] == "preprod"
    assert options["scopes"] == [["org", str(project.org_id)], ["project", str(project.id)]]
    assert options["expirationPolicy"] == "manual"
    assert options["authToken"].count(".") == 2


def test_upload_options_are_json_to_the_letter(project: Project) -> None:
    """The client refuses every other media type as "not JSON"."""
    answer = project.ask("GET", f"{project.snapshots_path}upload-options/")
    assert answer.headers["content-type"] == "application/json"


def test_an_unknown_use_case_is_refused(project: Project) -> None:
    for name in ("attachments", "AUTO", "%00"):
        answer = project.ask("GET", f"{project.snapshots_path}upload-options/?usecase={name}")
        assert (answer.status_code, answer.json()) == (400, {"detail": "Invalid usecase"})


def test_a_project_is_found_by_slug_or_id_and_so_is_its_organization(project: Project) -> None:
    for org in (project.org, str(project.org_id)):
        for name in (project.slug, str(project.id)):
            project.get(f"/api/0/projects/{org}/{name}/preprodartifacts/snapshots/upload-options/")


@pytest.mark.parametrize("name", ["absent", "%00", "a%2Fb", "-1", "9" * 30, "%F0%9F%92%A9"])
def test_a_project_that_is_not_there_is_not_found(project: Project, name: str) -> None:
    path = f"/api/0/projects/main/{name}/preprodartifacts/snapshots/"
    assert project.ask("GET", f"{path}upload-options/").status_code == 404
    assert project.ask("POST", path, content=b"{}").status_code == 404


# --- What create refuses -------------------------------------------------------------------------------------------------

APP_ID = "The app_id field is required and must be a string with maximum length of 255 characters."
IMAGES = "The images field is required and must be an object mapping image names to image metadata."
NAMES = "The all_image_file_names field must be an array of strings with at most 50000 entries."
SHA = "The {} field must be a 40-character hexadecimal SHA1 string (no uppercase letters)."
TEXT = "The {} field must be a string with maximum length of 255 characters"
PROVIDER = f"{TEXT} containing the domain of the VCS provider (ex. github.com)."
NUMBER = "The pr_number field must be a positive integer."
LONG = "x" * 256
HALF = "\ud83d"
"""Half of a surrogate pair: JSON can spell it, and neither UTF-8 nor a database can hold it."""

ONE = {"a.png": entry(png("one"))}
SELECTIVE = {"selective": True, "base_sha": BASE}

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"app_id": None}, APP_ID),
    ({"app_id": ""}, APP_ID),
    ({"app_id": 7}, APP_ID),
    ({"app_id": LONG}, APP_ID),
    ({"app_id": "a\0b"}, APP_ID),
    ({"app_id": HALF}, APP_ID),
    ({"images": None}, IMAGES),
    ({"images": []}, IMAGES),
    ({"images": "a.png"}, IMAGES),
    ({"diff_threshold": 1}, "The diff_threshold field must be a number, at least 0 and less than 1."),
    ({"diff_threshold": -0.1}, "The diff_threshold field must be a number, at least 0 and less than 1."),
    ({"diff_threshold": "0.1"}, "The diff_threshold field must be a number, at least 0 and less than 1."),
    ({"diff_threshold": True}, "The diff_threshold field must be a number, at least 0 and less than 1."),
    ({"diff_threshold": 10**400}, "The diff_threshold field must be a number, at least 0 and less than 1."),
    ({"selective": "yes"}, "The selective field must be a boolean."),
    ({"selective": 1}, "The selective field must be a boolean."),
    ({**SELECTIVE, "all_image_file_names": "a.png"}, NAMES),
    ({**SELECTIVE, "all_image_file_names": ["a.png", 7]}, NAMES),
    ({**SELECTIVE, "all_image_file_names": ["a.png"] * 50_001}, NAMES),
    ({"head_sha": "abc"}, SHA.format("head_sha")),
    ({"head_sha": HEAD.upper()}, SHA.format("head_sha")),
    ({"head_sha": 7}, SHA.format("head_sha")),
    ({"head_sha": f"{HEAD}\n"}, SHA.format("head_sha")),
    ({"base_sha": "g" * 40}, SHA.format("base_sha")),
    ({"provider": LONG}, PROVIDER.format("provider")),
    ({"head_repo_name": LONG}, TEXT.format("head_repo_name") + "."),
    ({"base_repo_name": 7}, TEXT.format("base_repo_name") + "."),
    ({"head_ref": "a\0b"}, TEXT.format("head_ref") + "."),
    ({"head_ref": HALF}, TEXT.format("head_ref") + "."),
    ({"base_ref": ["main"]}, TEXT.format("base_ref") + "."),
    ({"pr_number": 0}, NUMBER),
    ({"pr_number": -1}, NUMBER),
    ({"pr_number": "12"}, NUMBER),
    ({"pr_number": True}, NUMBER),
    ({"pr_number": 1.5}, NUMBER),
    ({"pr_number": 2**40}, NUMBER),
    ({"images": {"manifest.json": entry(png("one"))}}, "The filename manifest.json is reserved."),
    ({"all_image_file_names": ["a.png"]}, "all_image_file_names requires selective to be true."),
    ({"selective": True}, "selective requires base_sha to be provided."),
    ({"selective": True, "base_sha": ""}, "selective requires base_sha to be provided."),
    ({**SELECTIVE, "all_image_file_names": []}, "all_image_file_names must not be empty."),
    (
        {**SELECTIVE, "all_image_file_names": ["b.png"]},
        "Every image name must appear in all_image_file_names.",
    ),
]


@pytest.mark.parametrize(
    ("change", "detail"), REFUSED, ids=[f"{number}-{'-'.join(change)}" for number, (change, _) in enumerate(REFUSED)]
)
def test_a_create_that_breaks_a_rule_is_refused_in_the_words_clients_know(
    project: Project, change: dict[str, Any], detail: str
) -> None:
    document = {"app_id": "web", "images": ONE} | change
    answer = project.create(document)
    assert (answer.status_code, answer.json()["detail"]) == (400, detail)
    assert project.service.rows(f"SELECT count(*) FROM artifact WHERE project_id = {project.id}") == [(0,)]


@pytest.mark.parametrize("field", ["app_id", "images"])
def test_a_create_without_a_required_field_is_refused(project: Project, field: str) -> None:
    document = manifest_of({"a.png": png("one")})
    del document[field]
    answer = project.create(document)
    assert answer.status_code == 400
    assert field in answer.json()["detail"]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "//a.png",
        "..",
        "../a.png",
        "a/../../b.png",
        "a/./b.png",
        "./a.png",
        "a//b.png",
        "a/",
        "a\0.png",
        "a\n.png",
        "..\\a.png",
        "C:\\a.png",
        "\ud800.png",
        "x" * 1025,
    ],
)
def test_a_name_that_is_no_path_below_a_folder_is_refused(project: Project, name: str) -> None:
    answer = project.create({"app_id": "web", "images": {name: entry(png("one"))}})
    assert answer.status_code == 400
    assert "image name" in answer.json()["detail"]
    listed = project.create(
        {"app_id": "web", "images": ONE, "selective": True, "base_sha": BASE, "all_image_file_names": ["a.png", name]}
    )
    assert listed.status_code == 400


@pytest.mark.parametrize("name", ["a b é.png", "deep/er/and/deeper.png", "💩.png", ".hidden/..a.png", "x" * 1024])
def test_an_unusual_name_is_a_name(project: Project, name: str) -> None:
    number = project.snapshot({name: png("named")})
    (image,) = project.details(number)["images"]
    assert image["image_file_name"] == name


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"content_hash": None}, "content_hash"),
        ({"content_hash": "abc"}, "content_hash"),
        ({"content_hash": sha(png("one")).upper()}, "content_hash"),
        ({"content_hash": sha(png("one")) + "\n"}, "content_hash"),
        ({"content_hash": 7}, "content_hash"),
        ({"width": -1}, "width"),
        ({"width": "8"}, "width"),
        ({"width": 8.5}, "width"),
        ({"width": True}, "width"),
        ({"height": None}, "height"),
        ({"height": 2**31}, "height"),
        ({"diff_threshold": 1}, "diff_threshold"),
        ({"display_name": 7}, "display_name"),
        ({"group": []}, "group"),
        ({"description": {}}, "description"),
        ({"description": "a\0b"}, None),
        ({"tags": {"a\0b": "c"}}, None),
        ({"custom": [{"deep": HALF}]}, None),
        ({HALF: "name of a field"}, None),
        ({"custom": deep(40)}, None),
        ({"tags": deep(400)}, None),
        ({"custom": "x" * (2**20 + 1)}, None),
    ],
)
def test_metadata_of_an_image_that_cannot_be_kept_is_refused_by_name(
    project: Project, change: dict[str, Any], field: str | None
) -> None:
    answer = project.create({"app_id": "web", "images": {"a.png": entry(png("one")) | change}})
    assert answer.status_code == 400
    where = f', field "{field}"' if field else ""
    assert answer.json()["detail"].startswith(f'Validation error in image "a.png"{where}:')


def test_an_entry_that_is_no_object_is_refused_by_name(project: Project) -> None:
    answer = project.create({"app_id": "web", "images": {"a.png": "abc"}})
    assert answer.json()["detail"].startswith('Validation error in image "a.png":')


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_none_is_refused(project: Project, text: str) -> None:
    body = json.dumps({"app_id": "web", "images": {"a.png": entry(png("one"), custom="?")}}).replace('"?"', text)
    assert project.create(body.encode()).status_code == 400


def test_more_than_fifty_thousand_images_are_refused(project: Project) -> None:
    one = entry(png("one"))
    answer = project.create({"app_id": "web", "images": {f"{number}.png": one for number in range(50_001)}})
    assert answer.status_code == 400
    assert "50000" in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b"\xff\xfe{}",
        b'{"app_id": "web",}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"images": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"9" * 5000,
    ],
    ids=lambda body: f"{body[:12]!r}-{len(body)}",
)
def test_a_body_that_is_no_json_object_is_refused(project: Project, body: bytes) -> None:
    answer = project.create(body)
    assert (answer.status_code, answer.json()["detail"]) == (400, "Invalid json body")


def test_fields_nobody_knows_yet_are_accepted(project: Project) -> None:
    project.snapshot({"a.png": png("future")}, some_field={"of": ["a", "newer", "client"]})


# --- Bodies on their way ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", [None, "identity", "zstd", "zstd sized", "zstd frames"])
def test_a_manifest_is_read_however_it_was_packed(project: Project, encoding: str | None) -> None:
    data = png(f"manifest {encoding}")
    session = project.session()
    session.upload(data)
    text = json.dumps(manifest_of({"a.png": data})).encode()
    body = {"zstd": frames(text), "zstd sized": sized(text), "zstd frames": frames(text, 3)}.get(encoding or "", text)
    headers = {"content-encoding": encoding.split()[0]} if encoding else {}
    answer = project.create(body, headers=headers)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "zstd, gzip"])
def test_an_encoding_nobody_speaks_is_refused(project: Project, encoding: str) -> None:
    answer = project.create(b"{}", headers={"content-encoding": encoding})
    assert (answer.status_code, answer.json()["detail"]) == (400, "Unsupported Content-Encoding")


def test_a_body_that_is_no_zstd_is_refused(project: Project) -> None:
    answer = project.create(b"{}", headers={"content-encoding": "zstd"})
    assert (answer.status_code, answer.json()["detail"]) == (400, "Invalid zstd payload")


def test_a_truncated_zstd_manifest_is_refused(project: Project) -> None:
    text = json.dumps(manifest_of({f"{number}.png": png("same") for number in range(500)})).encode()
    body = frames(text)[:-40]
    assert project.create(body, headers={"content-encoding": "zstd"}).status_code == 400


# --- Creating ----------------------------------------------------------------------------------------------------------------


def test_create_answers_with_what_its_clients_read(service: Service, project: Project) -> None:
    session = project.session()
    images = {"a.png": png("a"), "b/c.png": png("c")}
    session.upload(*images.values())
    answer = project.create(manifest_of(images))
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert set(document) == {"artifactId", "snapshotMetricsId", "imageCount", "snapshotUrl"}
    assert isinstance(document["artifactId"], str)
    assert document["imageCount"] == 2
    assert urlsplit(document["snapshotUrl"]).netloc == urlsplit(service.address).netloc


def test_a_manifest_that_names_images_the_store_does_not_hold_is_refused_and_leaves_nothing(
    service: Service, project: Project
) -> None:
    session = project.session()
    here, absent = png("here"), [png("absent 1"), png("absent 2")]
    session.upload(here)
    before = service.kept()
    images = {"here.png": here, "x.png": absent[0], "y.png": absent[1], "again.png": absent[1]}
    answer = project.create(manifest_of(images))
    assert answer.status_code == 409
    assert set(answer.json()) == {"detail", "missing"}
    assert answer.json()["missing"] == sorted(answer.json()["missing"])
    assert set(answer.json()["missing"]) >= set(map(sha, absent))
    service.settle()
    assert service.kept() == before
    # What was uploaded is still promised, so the client may upload the rest and try again.
    session.upload(*absent)
    assert project.create(manifest_of(images)).status_code == 200


def test_images_that_the_caller_has_just_stored_are_not_said_to_be_missing(project: Project) -> None:
    here, absent = png("here"), png("absent")
    project.session().upload(here)
    assert project.create(manifest_of({"a.png": here, "b.png": absent})).json()["missing"] == [sha(absent)]


def test_a_manifest_of_images_that_only_another_session_stored_belongs_to_that_session(project: Project) -> None:
    """Create carries no session, only the images: the one that holds them all is the one that is closed."""
    data = png("whose")
    first, second = project.session(), project.session()
    first.upload(data)
    project.named({"a.png": data})
    assert (first.head(data), second.head(data)) == (409, 204)


def test_images_of_another_project_are_missing_here(service: Service, project: Project) -> None:
    data = png("over there")
    service.new_project().snapshot({"a.png": data})
    assert project.create(manifest_of({"a.png": data})).json()["missing"] == [sha(data)]


def test_a_snapshot_may_name_images_of_live_snapshots_without_any_session(service: Service, project: Project) -> None:
    images = {"a.png": png("named twice"), "b.png": png("named too")}
    first = project.snapshot(images)
    second = project.named(images, app_id="other")
    assert first != second
    project.delete(first)
    service.settle()
    assert project.details(second)["image_count"] == 2
    assert project.session().read(images["a.png"]).content == images["a.png"]


def test_images_that_are_only_waiting_to_go_are_missing(project: Project) -> None:
    data = png("leaving")
    project.delete(project.snapshot({"a.png": data}))
    assert project.create(manifest_of({"b.png": data})).json()["missing"] == [sha(data)]


def test_an_empty_snapshot_is_a_snapshot(project: Project) -> None:
    number = project.named({})
    assert project.details(number)["image_count"] == 0


def test_one_image_may_have_many_names(service: Service, project: Project) -> None:
    data = png("many names")
    number = project.snapshot({f"{letter}.png": data for letter in "abc"})
    assert [image["key"] for image in project.details(number)["images"]] == [sha(data)] * 3
    assert len(service.files_of(data)) == 1


def test_a_snapshot_of_many_images_keeps_every_one(project: Project) -> None:
    images = {f"page/{number:04}.png": png(f"many {number}") for number in range(700)}
    number = project.snapshot(images)
    found = project.details(number)["images"]
    assert {image["image_file_name"]: image["key"] for image in found} == {
        name: sha(data) for name, data in images.items()
    }


# --- The same request again ------------------------------------------------------------------------------------------------------


def test_the_same_create_again_is_answered_with_the_same_snapshot(service: Service, project: Project) -> None:
    """Clients retry a create when its answer was lost."""
    data = png("retried")
    session = project.session()
    session.upload(data)
    document = manifest_of({"a.png": data}, head_sha=commit_sha("retried"))
    first = project.create(document)
    made = service.kept()
    again = [project.create(document), project.create(frames(json.dumps(document).encode()), headers=ZSTD)]
    assert [answer.json() for answer in again] == [first.json()] * 2
    assert service.kept() == made


ZSTD = {"content-encoding": "zstd"}


def test_the_same_create_again_after_its_snapshot_was_deleted_is_refused_and_makes_nothing(
    service: Service, project: Project
) -> None:
    data, document = png("deleted since"), manifest_of({"a.png": png("deleted since")})
    session = project.session()
    session.upload(data)
    number = int(project.create(document).json()["artifactId"])
    project.delete(number)
    kept = service.kept()
    assert project.create(document).status_code == 409
    assert service.kept() == kept
    service.settle()
    kept = service.kept()
    answer = project.create(document)
    assert answer.status_code == 409
    assert str(number) in answer.json()["detail"]
    assert service.kept() == kept


def test_a_deleted_snapshot_does_not_come_back_by_a_retry_because_another_one_still_has_its_images(
    project: Project,
) -> None:
    images = {"a.png": png("kept by another")}
    number = project.snapshot(images)
    project.named(images, app_id="other")
    project.delete(number)
    assert project.create(manifest_of(images)).status_code == 409


def test_a_deleted_snapshot_can_be_uploaded_again_on_purpose(project: Project) -> None:
    images = {"a.png": png("on purpose")}
    number = project.snapshot(images)
    project.delete(number)
    assert project.snapshot(images) > number


def test_after_ten_minutes_the_same_create_makes_another_snapshot(service: Service, project: Project) -> None:
    images = {"a.png": png("later")}
    first = project.snapshot(images)
    service.clock.push(timedelta(minutes=9))
    assert project.named(images) == first
    service.clock.push(timedelta(minutes=2))
    assert project.named(images) != first


def test_two_sessions_may_store_the_same_images_and_both_make_a_snapshot(service: Service, project: Project) -> None:
    images = {"a.png": png("both store"), "b.png": png("it")}
    first, second = project.session(), project.session()
    first.upload(*images.values())
    second.upload(*images.values())
    numbers = [project.named(images, app_id=app) for app in ("one", "two")]
    assert len(set(numbers)) == 2
    project.delete(numbers[0])
    service.settle()
    assert {name for name in images if len(service.files_of(images[name])) == 1} == set(images)
    assert project.session().read(images["a.png"]).status_code == 200
    assert (first.head(images["a.png"]), second.head(images["a.png"])) == (409, 409)


# --- Comparing -------------------------------------------------------------------------------------------------------------------

BASE_IMAGES = {"same.png": png("same"), "changed.png": png("before"), "gone.png": png("gone"), "old.png": png("moved")}
HEAD_IMAGES = {"same.png": png("same"), "changed.png": png("after"), "fresh.png": png("fresh"), "new.png": png("moved")}


def of_base(**more: Any) -> dict[str, Any]:
    return {"head_sha": BASE, "head_ref": "main", **REPO, **more}


def of_head(**more: Any) -> dict[str, Any]:
    return {"head_sha": HEAD, "base_sha": BASE, "head_ref": "topic", "base_ref": "main", **REPO, **more}


def assert_compared(document: dict[str, Any], base: int) -> None:
    categories = ("changed", "added", "removed", "renamed", "unchanged", "errored", "skipped")
    assert (document["comparison_type"], document["comparison_state"]) == ("diff", "success")
    assert document["base_artifact_id"] == str(base)
    assert {category: document[f"{category}_count"] for category in categories} == {
        "changed": 1,
        "added": 1,
        "removed": 1,
        "renamed": 1,
        "unchanged": 1,
        "errored": 0,
        "skipped": 0,
    }


def test_a_head_that_comes_after_its_base_is_compared_with_it(service: Service, project: Project) -> None:
    base = project.snapshot(BASE_IMAGES, **of_base())
    head = project.snapshot(HEAD_IMAGES, **of_head())
    assert project.details(head)["comparison_state"] == "pending"
    assert service.compare() == 1
    assert_compared(project.details(head), base)


def test_a_head_that_comes_before_its_base_is_compared_when_the_base_arrives(
    service: Service, project: Project
) -> None:
    head = project.snapshot(HEAD_IMAGES, **of_head())
    document = project.details(head)
    assert (document["comparison_type"], document["comparison_state"]) == ("waiting_for_base", "waiting_for_base")
    assert (document["base_artifact_id"], document["image_count"]) == (None, 4)
    assert len(document["images"]) == 4
    base = project.snapshot(BASE_IMAGES, **of_base())
    assert project.details(head)["comparison_state"] == "pending"
    assert service.compare() == 1
    assert_compared(project.details(head), base)


def test_a_base_arriving_wakes_every_head_that_waits_for_it(service: Service, project: Project) -> None:
    heads = [project.snapshot(HEAD_IMAGES, **of_head(head_sha=commit_sha(number))) for number in range(3)]
    base = project.snapshot(BASE_IMAGES, **of_base())
    assert service.compare() == 3
    for head in heads:
        assert_compared(project.details(head), base)


def test_snapshots_of_other_apps_repositories_and_projects_are_no_base(service: Service, project: Project) -> None:
    project.snapshot(BASE_IMAGES, **of_base(app_id="other"))
    project.snapshot(BASE_IMAGES, **of_base(head_repo_name="fork/web"))
    service.new_project().snapshot(BASE_IMAGES, **of_base())
    head = project.snapshot(HEAD_IMAGES, **of_head())
    assert service.compare() == 0
    assert project.details(head)["comparison_type"] == "waiting_for_base"


def test_after_ten_minutes_without_a_base_a_head_is_said_to_have_none(service: Service, project: Project) -> None:
    head = project.snapshot(HEAD_IMAGES, **of_head())
    service.clock.push(timedelta(minutes=11))
    document = project.details(head)
    assert (document["comparison_type"], document["comparison_state"]) == ("solo", "no_base_build")
    project.snapshot(BASE_IMAGES, **of_base())
    service.compare()
    assert project.details(head)["comparison_type"] == "diff"


def test_a_head_whose_base_is_deleted_waits_for_a_base_again(service: Service, project: Project) -> None:
    base = project.snapshot(BASE_IMAGES, **of_base())
    head = project.snapshot(HEAD_IMAGES, **of_head())
    service.compare()
    project.delete(base)
    document = project.details(head)
    assert document["comparison_type"] == "waiting_for_base"
    assert (document["base_artifact_id"], len(document["images"])) == (None, 4)
    assert sha(BASE_IMAGES["gone.png"]) not in json.dumps(document)


def test_a_selective_head_skips_what_it_did_not_upload(service: Service, project: Project) -> None:
    project.snapshot(BASE_IMAGES, **of_base())
    head = project.snapshot({"changed.png": png("after")}, **of_head(selective=True))
    service.compare()
    document = project.details(head)
    assert document["is_selective"] is True
    assert (document["changed_count"], document["skipped_count"], document["removed_count"]) == (1, 3, 0)


def test_a_threshold_says_how_much_may_change(service: Service, project: Project) -> None:
    project.snapshot({"changed.png": png("before")}, **of_base())
    generous = project.snapshot({"changed.png": png("after")}, **of_head(diff_threshold=0.999, head_sha=commit_sha(1)))
    strict = project.snapshot({"changed.png": png("after")}, **of_head(diff_threshold=0.5, head_sha=commit_sha(2)))
    service.compare()
    # Every pixel differs, so a share of 1 is above any threshold there can be.
    for number, threshold in ((generous, 0.999), (strict, 0.5)):
        document = project.details(number)
        assert document["diff_threshold"] == threshold
        assert document["changed_count"] == 1


# --- Details --------------------------------------------------------------------------------------------------------------------

ALWAYS = {
    "head_artifact_id",
    "base_artifact_id",
    "project_id",
    "comparison_type",
    "state",
    "app_id",
    "is_selective",
    "vcs_info",
    "images",
    "image_count",
    "diff_threshold",
    "comparison_state",
    "approval_status",
    "comparison_error_message",
    "approvers",
    *(
        f"{category}{suffix}"
        for category in ("changed", "added", "removed", "renamed", "unchanged", "errored", "skipped")
        for suffix in ("", "_count")
    ),
}
IMAGE = {
    "key",
    "display_name",
    "group",
    "image_file_name",
    "width",
    "height",
    "canvas_theme",
    "tags",
    "description",
}


def test_details_of_a_snapshot_without_a_base_list_its_images(project: Project) -> None:
    data, facts = png("facts", 5, 7), {"display_name": "Home", "group": "pages", "tags": {"os": "linux"}}
    session = project.session()
    session.upload(data)
    described = entry(
        data, 5, 7, **facts, description="The first page", canvas_theme="dark", diff_threshold=0.25, custom=[1, "two"]
    )
    number = int(project.create({"app_id": "web", "images": {"p/home.png": described}}).json()["artifactId"])
    document = project.details(number)
    assert set(document) >= ALWAYS
    assert document["head_artifact_id"] == str(number)
    assert document["project_id"] == str(project.id)
    assert (document["comparison_type"], document["comparison_state"], document["state"]) == ("solo", None, "UPLOADED")
    assert (document["approval_status"], document["approvers"], document["base_artifact_id"]) == (None, [], None)
    assert document["images"] == [
        {
            "key": sha(data),
            "image_file_name": "p/home.png",
            "width": 5,
            "height": 7,
            "canvas_theme": "dark",
            "description": "The first page",
            "diff_threshold": 0.25,
            "custom": [1, "two"],
            **facts,
        }
    ]


def test_details_of_a_compared_snapshot_list_what_became_of_each_image(service: Service, project: Project) -> None:
    base = project.snapshot(BASE_IMAGES, **of_base())
    head = project.snapshot(HEAD_IMAGES, **of_head(pr_number=12, diff_threshold=0.01))
    service.compare()
    document = project.details(head)
    assert set(document) >= ALWAYS
    assert_compared(document, base)
    assert document["images"] == []
    assert document["vcs_info"] == {
        "head_sha": HEAD,
        "base_sha": BASE,
        "provider": "github",
        "head_repo_name": "acme/web",
        "base_repo_name": "acme/web",
        "head_ref": "topic",
        "base_ref": "main",
        "pr_number": 12,
    }
    (pair,) = document["changed"]
    assert set(pair) >= {"base_image", "head_image", "diff_image_key", "diff"}
    assert (pair["base_image"]["key"], pair["head_image"]["key"]) == (sha(png("before")), sha(png("after")))
    assert set(pair["base_image"]) == IMAGE
    assert set(pair["head_image"]) == IMAGE | {"diff_threshold"}
    assert pair["diff"] == 1.0
    assert pair["diff_image_key"]
    (renamed,) = document["renamed"]
    assert (renamed["base_image"]["image_file_name"], renamed["head_image"]["image_file_name"]) == (
        "old.png",
        "new.png",
    )
    assert (renamed["diff"], renamed["diff_image_key"]) == (None, None)
    assert [image["image_file_name"] for image in document["added"]] == ["fresh.png"]
    assert [image["key"] for image in document["removed"]] == [sha(png("gone"))]
    assert [image["image_file_name"] for image in document["unchanged"]] == ["same.png"]


def test_an_image_that_cannot_be_decoded_is_errored_and_everything_else_is_compared(
    service: Service, project: Project
) -> None:
    project.snapshot({"broken.png": b"no image", "fine.png": png("fine")}, **of_base())
    head = project.snapshot({"broken.png": b"nor this", "fine.png": png("better")}, **of_head())
    service.compare()
    document = project.details(head)
    assert (document["errored_count"], document["changed_count"]) == (1, 1)
    (pair,) = document["errored"]
    assert (pair["head_image"]["image_file_name"], pair["diff"], pair["diff_image_key"]) == ("broken.png", None, None)


def test_changed_images_come_with_the_most_changed_first_and_lists_by_name(service: Service, project: Project) -> None:
    names = ["b.png", "a.png", "c.png"]
    project.snapshot({name: png("white", 4, 4) for name in names}, **of_base())
    head = project.snapshot(
        {"a.png": png("black", 4, 4), "b.png": png("black", 4, 8), "c.png": png("black", 4, 4), "z.png": png("z")},
        **of_head(),
    )
    service.compare()
    document = project.details(head)
    shares = [pair["diff"] for pair in document["changed"]]
    assert shares == sorted(shares, reverse=True)
    assert len(shares) == 3


@pytest.mark.parametrize("value", ["1", "true"])
def test_compact_metadata_cuts_every_image_to_its_names_and_texts(
    service: Service, project: Project, value: str
) -> None:
    project.snapshot(BASE_IMAGES, **of_base())
    head = project.snapshot(HEAD_IMAGES, **of_head())
    solo = project.snapshot({"a.png": png("compact")}, app_id="solo")
    service.compare()
    short = {"display_name", "image_file_name", "group", "description"}
    compared = project.get(f"{project.snapshot_path(head)}?compact_metadata={value}")
    assert set(compared["changed"][0]["head_image"]) == short
    assert set(compared["changed"][0]["base_image"]) == short
    assert set(compared["added"][0]) == short
    alone = project.get(f"{project.snapshot_path(solo)}?compact_metadata={value}")
    assert set(alone["images"][0]) == short
    assert set(project.get(f"{project.snapshot_path(solo)}?compact_metadata=0")["images"][0]) > short


def test_lenient_metadata_is_read_leniently(project: Project) -> None:
    data = png("lenient")
    project.session().upload(data)
    images = {
        "a.png": entry(data, tags=["one", 2], canvas_theme="sepia"),
        "b.png": entry(data, tags="neither", key="colliding", image_file_name="colliding"),
        "c.png": entry(data, tags={"n": 1}, group=None, path="a \\u0000 that is only text"),
    }
    number = int(project.create({"app_id": "web", "images": images}).json()["artifactId"])
    first, second, third = project.details(number)["images"]
    assert (first["tags"], first["canvas_theme"]) == ({"one": "one", "2": "2"}, None)
    assert (second["tags"], second["key"], second["image_file_name"]) == (None, sha(data), "b.png")
    assert (third["tags"], third["path"]) == ({"n": "1"}, "a \\u0000 that is only text")


@pytest.mark.parametrize("number", ["0", "999999", "x", "-1", "1.5", "9" * 18, "9" * 19, "9" * 40, "%00", "١"])
def test_a_snapshot_that_is_not_there_is_not_found(project: Project, number: str) -> None:
    for method, path in (
        ("GET", project.snapshot_path(number)),
        ("DELETE", project.snapshot_path(number)),
        ("POST", f"/api/0/organizations/main/preprodartifacts/{number}/reject/"),
    ):
        answer = project.ask(method, path)
        assert (answer.status_code, answer.json()) == (404, {"detail": "Snapshot not found"}), (method, path)


def test_the_newest_snapshot_of_a_commit_is_found_by_it(project: Project) -> None:
    head_sha = commit_sha("by commit")
    project.snapshot({"a.png": png("first try")}, head_sha=head_sha)
    newest = project.snapshot({"a.png": png("second try")}, head_sha=head_sha)
    path = f"/api/0/organizations/main/preprodartifacts/snapshots/by-commit/?head_sha={head_sha}"
    assert project.get(path)["head_artifact_id"] == str(newest)
    assert project.ask("GET", f"{path}&app_id=other").status_code == 404
    assert project.ask("GET", f"{path}&app_id=%00").status_code == 404
    assert project.ask("GET", f"{path[:-40]}%00").status_code == 404
    project.delete(newest)
    assert project.get(path)["head_artifact_id"] != str(newest)


# --- Deciding ----------------------------------------------------------------------------------------------------------------------


def test_a_decision_is_remembered_once_and_shown(project: Project) -> None:
    number = project.snapshot({"a.png": png("decided")})
    approve = f"/api/0/organizations/main/preprodartifacts/{number}/approve/"
    reject = f"/api/0/organizations/main/preprodartifacts/{number}/reject/"
    body = {"feature_type": "snapshots"}
    first, again = project.ask("POST", approve, json=body), project.ask("POST", approve, json=body)
    assert (first.status_code, first.json()) == (201, {"detail": "Approved"})
    assert (again.status_code, again.json()) == (200, {"detail": "Already approved"})
    document = project.details(number)
    assert document["approval_status"] == "approved"
    (approver,) = document["approvers"]
    assert approver["name"] == "token:test"
    assert approver["approved_at"].endswith("Z")
    assert project.ask("POST", reject).status_code == 201
    assert project.details(number)["approval_status"] == "requires_approval"


def test_a_decision_about_nothing_is_refused(project: Project) -> None:
    number = project.snapshot({"a.png": png("undecided")})
    path = f"/api/0/organizations/main/preprodartifacts/{number}/approve/"
    for body in (b"{}", b'{"feature_type": "paint"}', b'{"feature_type": []}'):
        answer = project.ask("POST", path, content=body)
        assert answer.json() == {"detail": "feature_type must be one of: snapshots, size"}
        assert answer.status_code == 400
    assert project.ask("POST", path, content=b"[" * 30_000).status_code == 400
    assert project.details(number)["approval_status"] is None


def test_refusals_left_nothing_behind(service: Service) -> None:
    """After everything above: rows and store agree, and no scratch file is left."""
    service.settle()
    assert service.disagreements() == []
    assert service.scratch() == []
    assert isinstance(service.kept(), Kept)
