"""Who may do what: every scope on every route, and that a foreign thing looks exactly like one that does not exist."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from api_fixtures import Project, Service, Session, frames, manifest_of, png, raw, running, sha

from snapshed.domain.grants import Scope
from snapshed.work import access

SCOPES: tuple[Scope, ...] = get_args(Scope)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("access") / "data") as service:
        yield service


@dataclass(frozen=True)
class Target:
    """A project with a snapshot and a finished deletion: something to ask every route about."""

    project: Project
    snapshot: int
    deletion: str
    build: int
    """Held, so that no test deletes it."""


@pytest.fixture(scope="module")
def target(service: Service) -> Target:
    return make_target(service, "main")


def make_target(service: Service, org: str) -> Target:
    project = service.new_project(org)
    gone = project.snapshot({"a.png": png("gone")})
    deletion = project.delete(gone)["id"]
    service.settle()
    build = project.build(b"an app")
    assert project.ask("POST", project.holds_path, json={"snapshot": build, "reason": "kept"}).status_code == 201
    return Target(project, project.snapshot({"a.png": png("here")}), deletion, build)


@dataclass(frozen=True)
class Route:
    """One way in: what to ask, the scope it needs, and what is answered to somebody who has it."""

    name: str
    method: str
    path: Callable[[Target], str]
    needs: Scope
    granted: int
    body: Callable[[Target], Any] | None = None
    template: str = ""


API = "/api/0/organizations/{}/preprodartifacts"


def retention_path(at: Target) -> str:
    return f"/api/0/organizations/{at.project.org}/projects/{at.project.slug}/retention/"


ROUTES = [
    Route(
        "upload options",
        "GET",
        lambda at: f"{at.project.snapshots_path}upload-options/?usecase=auto",
        "upload",
        200,
        template="/api/0/projects/{org}/{project}/preprodartifacts/snapshots/upload-options/",
    ),
    Route(
        "create",
        "POST",
        lambda at: at.project.snapshots_path,
        "upload",
        409,
        lambda _: manifest_of({"a.png": png("never uploaded")}),
        template="/api/0/projects/{org}/{project}/preprodartifacts/snapshots/",
    ),
    Route(
        "details",
        "GET",
        lambda at: at.project.snapshot_path(at.snapshot),
        "read",
        200,
        template="/api/0/organizations/{org}/preprodartifacts/snapshots/{number}/",
    ),
    Route(
        "approve",
        "POST",
        lambda at: f"{API.format(at.project.org)}/{at.snapshot}/approve/",
        "review",
        201,
        lambda _: {"feature_type": "snapshots"},
        template="/api/0/organizations/{org}/preprodartifacts/{number}/approve/",
    ),
    Route(
        "reject",
        "POST",
        lambda at: f"{API.format(at.project.org)}/{at.snapshot}/reject/",
        "review",
        201,
        template="/api/0/organizations/{org}/preprodartifacts/{number}/reject/",
    ),
    Route(
        "preview",
        "POST",
        lambda at: at.project.deletions_path,
        "delete",
        200,
        lambda at: {"snapshots": [str(at.snapshot)], "dry_run": True},
        template="/api/0/organizations/{org}/deletions/",
    ),
    Route(
        "preview by project",
        "POST",
        lambda at: at.project.deletions_path,
        "delete",
        200,
        lambda at: {"project": at.project.slug, "filter": {"app_id": "web"}, "dry_run": True},
        template="/api/0/organizations/{org}/deletions/",
    ),
    Route(
        "urgent",
        "POST",
        lambda at: at.project.deletions_path,
        "admin",
        200,
        lambda at: {"snapshots": [str(at.snapshot)], "dry_run": True, "urgent": True},
        template="/api/0/organizations/{org}/deletions/",
    ),
    Route(
        "receipt",
        "GET",
        lambda at: f"{at.project.deletions_path}{at.deletion}/",
        "read",
        200,
        template="/api/0/organizations/{org}/deletions/{deletion_id}/",
    ),
    Route(
        "objects",
        "GET",
        lambda at: f"{at.project.deletions_path}{at.deletion}/objects",
        "read",
        200,
        template="/api/0/organizations/{org}/deletions/{deletion_id}/objects",
    ),
    Route(
        "verification",
        "GET",
        lambda at: f"{at.project.deletions_path}{at.deletion}/verification",
        "read",
        200,
        template="/api/0/organizations/{org}/deletions/{deletion_id}/verification",
    ),
    Route(
        "shard",
        "PUT",
        lambda at: f"{at.project.snapshots_path}shards/1/",
        "upload",
        400,
        lambda _: manifest_of({}),
        template="/api/0/projects/{org}/{project}/preprodartifacts/snapshots/shards/{number}/",
    ),
    Route(
        "group of shards",
        "GET",
        lambda at: f"{at.project.snapshots_path}group/?key=never",
        "read",
        404,
        template="/api/0/projects/{org}/{project}/preprodartifacts/snapshots/group/",
    ),
    Route(
        "image detail",
        "GET",
        lambda at: f"{at.project.snapshot_path(at.snapshot)}images/a.png/",
        "read",
        200,
        template="/api/0/organizations/{org}/preprodartifacts/snapshots/{number}/images/{identifier}/",
    ),
    Route(
        "bytes of an image",
        "GET",
        lambda at: f"/api/0/projects/{at.project.org}/{at.project.slug}/files/images/{sha(png('here'))}/",
        "read",
        200,
        template="/api/0/projects/{org}/{project}/files/images/{image_id}/",
    ),
    Route(
        "archive",
        "GET",
        lambda at: f"{at.project.snapshot_path(at.snapshot)}archive/?download",
        "read",
        200,
        template="/api/0/organizations/{org}/preprodartifacts/snapshots/{number}/archive/",
    ),
    Route(
        "build of an archive",
        "POST",
        lambda at: f"{at.project.snapshot_path(at.snapshot)}archive/",
        "read",
        202,
        template="/api/0/organizations/{org}/preprodartifacts/snapshots/{number}/archive/",
    ),
    Route(
        "preview of a withdrawal",
        "POST",
        lambda at: at.project.deletions_path,
        "delete",
        200,
        lambda at: {"project": at.project.slug, "image": sha(png("here")), "dry_run": True},
        template="/api/0/organizations/{org}/deletions/",
    ),
    Route(
        "upload a build",
        "POST",
        lambda at: f"{at.project.builds_path}?app_id=app&file_name=more.apk",
        "upload",
        201,
        template="/api/0/projects/{org}/{project}/preprodartifacts/builds/",
    ),
    Route(
        "build",
        "GET",
        lambda at: at.project.build_path(at.build),
        "read",
        200,
        template="/api/0/organizations/{org}/preprodartifacts/builds/{number}/",
    ),
    Route(
        "file of a build",
        "GET",
        lambda at: f"{at.project.build_path(at.build)}file",
        "read",
        200,
        template="/api/0/organizations/{org}/preprodartifacts/builds/{number}/file",
    ),
    Route(
        "delete a held build",
        "DELETE",
        lambda at: at.project.build_path(at.build),
        "delete",
        409,
        template="/api/0/organizations/{org}/preprodartifacts/builds/{number}/",
    ),
    Route(
        "compare again",
        "POST",
        lambda at: f"{at.project.snapshot_path(at.snapshot)}recompare/",
        "admin",
        400,  # it names no base commit
        template="/api/0/organizations/{org}/preprodartifacts/snapshots/{number}/recompare/",
    ),
    Route(
        "hold",
        "POST",
        lambda at: at.project.holds_path,
        "delete",
        201,
        lambda at: {"snapshot": str(at.build), "reason": "kept longer"},
        template="/api/0/organizations/{org}/holds/",
    ),
    Route(
        "hold of a branch",
        "POST",
        lambda at: at.project.holds_path,
        "delete",
        201,
        lambda at: {"project": at.project.slug, "branch": "release", "reason": "kept"},
        template="/api/0/organizations/{org}/holds/",
    ),
    Route(
        "retention rule",
        "GET",
        lambda at: retention_path(at),
        "admin",
        200,
        template="/api/0/organizations/{org}/projects/{project}/retention/",
    ),
    Route(
        "set the retention rule",
        "PUT",
        lambda at: retention_path(at),
        "admin",
        200,
        lambda _: {"quiet_days": 90},
        template="/api/0/organizations/{org}/projects/{project}/retention/",
    ),
    Route(
        "preview of retention",
        "GET",
        lambda at: f"{retention_path(at)}preview/",
        "admin",
        200,
        template="/api/0/organizations/{org}/projects/{project}/retention/preview/",
    ),
]
LISTS = {
    "/api/0/internal/preprod-artifact/batch-delete/",
    "/api/0/organizations/{org}/preprodartifacts/snapshots/latest-base/",
    "/api/0/organizations/{org}/deletions/",
    "/api/0/organizations/{org}/holds/",
    "/api/0/organizations/{org}/preprodartifacts/snapshots/by-commit/",
}
"""Routes that answer with what the asker may see, so that there is nothing foreign to ask for."""


def ask(route: Route, target: Target, token: str | None, **headers: str) -> httpx.Response:
    body = route.body(target) if route.body else None
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    return target.project.service.http.request(route.method, route.path(target), json=body, headers=headers)


def includes(scope: Scope, needs: Scope) -> bool:
    """The table of who may do what: every scope may read, an administrator everything, the others one thing each."""
    return scope in (needs, "admin") or needs == "read"


# --- Scopes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_a_scope_opens_what_it_should_and_nothing_else(
    service: Service, target: Target, route: Route, scope: Scope
) -> None:
    token = service.token(scope, project=target.project.slug, name=f"{scope} for {route.name}")
    answer = ask(route, target, token)
    if includes(scope, route.needs):
        assert answer.status_code == route.granted, answer.text
    else:
        assert answer.status_code == 403, answer.text
        assert "it needs the scope" in answer.json()["detail"]


@pytest.mark.parametrize("scope", SCOPES)
def test_deleting_a_snapshot_needs_the_scope_for_it(service: Service, scope: Scope) -> None:
    project = service.new_project()
    number = project.snapshot({"a.png": png(f"deleted by {scope}")})
    token = service.token(scope, project=project.slug)
    answer = project.seen_with(token).ask("DELETE", project.snapshot_path(number))
    assert answer.status_code == (204 if includes(scope, "delete") else 403)
    assert (project.ask("GET", project.snapshot_path(number)).status_code == 404) == includes(scope, "delete")


@pytest.mark.parametrize("scope", SCOPES)
def test_releasing_a_hold_needs_the_scope_to_delete_and_to_see_it(service: Service, scope: Scope) -> None:
    project = service.new_project()
    build = project.build(b"held")
    hold = project.ask("POST", project.holds_path, json={"snapshot": build, "reason": "kept"}).json()["id"]
    path = f"{project.holds_path}{hold}/"
    assert project.seen_with(in_another_project(service)).ask("DELETE", path).status_code == 404
    assert project.seen_with(in_another_organization(service)).ask("DELETE", path).status_code == 404
    mine = project.seen_with(service.token(scope, project=project.slug))
    assert [found["id"] for found in mine.get(project.holds_path)] == [hold]
    assert mine.ask("DELETE", path).status_code == (204 if includes(scope, "delete") else 403)


def test_scopes_add_up(service: Service, target: Target) -> None:
    token = service.token("upload", "review", project=target.project.slug)
    told = {route.name: ask(route, target, token).status_code for route in ROUTES}
    refused = {name for name, status in told.items() if status == 403}
    assert refused == {
        "preview", "preview by project", "preview of a withdrawal", "urgent", "delete a held build", "hold", "compare again",
        "hold of a branch", "retention rule", "set the retention rule", "preview of retention",
    }  # fmt: skip


def test_every_route_of_the_organization_is_in_the_matrix(service: Service) -> None:
    """A new route that nobody thought about here fails this test."""
    paths = service.http.get("/openapi.json").json()["paths"]
    known = {route.template for route in ROUTES} | LISTS | {"/api/0/organizations/{org}/holds/{hold_id}/"}
    assert {path for path in paths if path.startswith("/api/")} == known


# --- Foreign and absent ------------------------------------------------------------------------------------------------------


def in_another_project(service: Service) -> str:
    return service.token("admin", project=service.new_project().slug)


def in_another_organization(service: Service) -> str:
    return service.new_project("elsewhere").token


@pytest.mark.parametrize("scope", ["admin", "read"])
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_what_belongs_to_another_project_is_the_same_404_as_what_is_absent(
    service: Service, target: Target, route: Route, scope: Scope
) -> None:
    """Whoever may not see it learns nothing from the answer, not even with too little scope."""
    mine = service.new_project()
    token = service.token(scope, project=mine.slug)
    nowhere = Target(
        Project(service, "main", "p999999", 0, 0, ""), 999_999_999, "0197a000-0000-7000-8000-000000000000", 999_999_999
    )
    foreign, absent = ask(route, target, token), ask(route, nowhere, token)
    orders = (target.project.deletions_path, target.project.holds_path)
    if scope == "read" and route.method == "POST" and route.path(target) in orders:
        # Who may delete nothing at all is told so before anything is looked up.
        assert (foreign.status_code, absent.status_code) == (403, 403)
        return
    assert (foreign.status_code, absent.status_code) == (404, 404)
    hidden = foreign.text.replace(str(target.snapshot), "N").replace(str(target.build), "N")
    assert hidden == absent.text.replace("999999999", "N")


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_another_organization_is_the_same_404_as_one_that_is_absent(
    service: Service, target: Target, route: Route
) -> None:
    token = in_another_organization(service)
    nowhere = Target(
        Project(service, "nobody", "p999999", 0, 0, ""),
        999_999_999,
        "0197a000-0000-7000-8000-000000000000",
        999_999_999,
    )
    foreign, absent = ask(route, target, token), ask(route, nowhere, token)
    assert (foreign.status_code, absent.status_code) == (404, 404)
    assert foreign.json() == absent.json()


def test_lists_show_only_what_the_asker_may_see(service: Service, target: Target) -> None:
    path = target.project.deletions_path
    with_org = [receipt["id"] for receipt in target.project.get(path)]
    assert target.deletion in with_org
    mine = target.project.seen_with(service.token("read", project=target.project.slug))
    assert [receipt["id"] for receipt in mine.get(path)] == [target.deletion]
    other = target.project.seen_with(in_another_project(service))
    assert other.get(path) == []
    assert other.get(f"{path}?snapshot={target.snapshot}") == []
    foreign = target.project.seen_with(in_another_organization(service))
    assert foreign.ask("GET", path).status_code == 404


def test_a_token_of_the_organization_reaches_every_project_of_it(service: Service) -> None:
    token = service.token("read")
    for _ in range(2):
        project = service.new_project()
        number = project.snapshot({"a.png": png("reached")})
        assert project.seen_with(token).details(number)["app_id"] == "web"


def test_a_deletion_over_several_projects_takes_nothing_of_a_foreign_one(service: Service, target: Target) -> None:
    mine = service.new_project()
    number = mine.snapshot({"a.png": png("mine")})
    deleter = mine.seen_with(service.token("delete", project=mine.slug))
    answer = deleter.order({"snapshots": [str(number), str(target.snapshot)]})
    assert answer.status_code == 404
    assert mine.details(number)
    assert target.project.details(target.snapshot)


# --- Tokens ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
@pytest.mark.parametrize("header", [None, "", "Bearer", "Basic dXNlcjpwYXNz", "Bearer sntrys_unknown", "Token x"])
def test_without_a_known_token_everything_is_a_401(target: Target, route: Route, header: str | None) -> None:
    answer = ask(route, target, None, **({} if header is None else {"authorization": header}))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert set(answer.json()) == {"detail"}


def test_a_revoked_token_is_a_401_at_once(service: Service) -> None:
    project = service.new_project()
    token = service.token("admin", name="to be revoked")
    seen = project.seen_with(token)
    assert seen.ask("GET", project.deletions_path).status_code == 200
    (token_id,) = [item.id for item in access.list_tokens(service.resources) if item.name == "to be revoked"]
    access.revoke_token(service.resources, token_id)
    for route in ROUTES:
        assert ask(route, Target(seen, 1, "x", 1), token).status_code == 401, route.name


def test_a_revoked_token_signs_its_browsers_out(service: Service) -> None:
    token = service.token("read", name="browsing")
    with service.signed_in(token) as browser:
        assert browser.get("/").status_code == 200
        (token_id,) = [item.id for item in access.list_tokens(service.resources) if item.name == "browsing"]
        access.revoke_token(service.resources, token_id)
        assert browser.get("/").status_code == 303


def test_the_word_bearer_may_be_written_in_any_case(target: Target) -> None:
    for word in ("bearer", "BEARER"):
        answer = ask(ROUTES[2], target, None, authorization=f"{word} {target.project.token}")
        assert answer.status_code == 200


def test_a_browsers_cookie_opens_neither_api_nor_blobs(service: Service, target: Target) -> None:
    session = target.project.session()
    with service.signed_in(target.project.token) as browser:
        assert browser.get(f"/snapshots/{target.snapshot}").status_code == 200
        for route in ROUTES:
            body = route.body(target) if route.body else None
            assert browser.request(route.method, route.path(target), json=body).status_code == 401, route.name
        assert browser.get(session.path(sha(png("here")))).status_code == 400
        assert browser.put(session.path(sha(png("new"))), content=png("new")).status_code == 400


def test_a_bearer_token_opens_no_page(service: Service, target: Target) -> None:
    for path in ("/", f"/snapshots/{target.snapshot}", f"/images/{target.project.id}/{sha(png('here'))}"):
        answer = service.http.get(path, headers={"authorization": f"Bearer {target.project.token}"})
        assert answer.status_code in (303, 401), path


def test_an_upload_token_does_not_open_the_api(target: Target) -> None:
    token = target.project.session().token
    for route in ROUTES:
        assert ask(route, target, token).status_code == 401, route.name


def test_a_token_in_the_address_is_not_heard(target: Target) -> None:
    for name in ("token", "access_token", "auth_token", "os_auth"):
        path = f"{target.project.snapshot_path(target.snapshot)}?{name}={target.project.token}"
        assert target.project.service.http.get(path).status_code == 401, name


def test_no_secret_is_ever_answered(service: Service, target: Target) -> None:
    for route in ROUTES:
        answer = ask(route, target, target.project.token)
        assert target.project.token not in answer.text, route.name
    assert target.project.token not in service.http.get("/metrics").text


# --- Where it is served ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("named") / "data", SNAPSHED_URL="https://snaps.example.com") as service:
        yield service


def as_host(service: Service, host: str, path: str, **headers: str) -> httpx.Response:
    return service.http.get(path, headers={"host": host, **headers})


def test_a_foreign_host_is_refused_when_the_address_is_set(named: Service) -> None:
    bearer = {"authorization": f"Bearer {named.admin}"}
    for path in ("/", "/api/0/organizations/main/deletions/", "/openapi.json", "/metrics", "/v1/objects/preprod/x/y"):
        for host in (
            "evil.example",
            f"127.0.0.1:{named.port}",
            "snaps.example.com.evil.example",
            "snaps.example.com:1",
        ):
            answer = as_host(named, host, path, **bearer)
            assert answer.status_code == 400, (host, path)
    assert as_host(named, "snaps.example.com", "/api/0/organizations/main/deletions/", **bearer).status_code == 200


def test_health_checks_come_by_any_name(named: Service) -> None:
    for path in ("/healthz", "/readyz", "/health", "/ready"):
        assert as_host(named, "10.0.0.7", path).status_code == 200, path


def test_a_request_without_a_host_is_refused_when_the_address_is_set(named: Service) -> None:
    answer = raw(named, b"GET /openapi.json HTTP/1.0\r\n\r\n")
    assert answer.split(b" ", 2)[1] == b"400"


def test_addresses_handed_out_are_those_of_the_setting(named: Service) -> None:
    bearer = {"authorization": f"Bearer {named.admin}"}
    path = "/api/0/projects/main/main/preprodartifacts/snapshots/upload-options/"
    assert (
        as_host(named, "snaps.example.com", path, **bearer).json()["objectstore"]["url"] == "https://snaps.example.com"
    )


def test_without_a_set_address_any_host_is_served_and_handed_out(service: Service, target: Target) -> None:
    path = f"{target.project.snapshots_path}upload-options/"
    answer = as_host(service, "snaps.lan:8400", path, authorization=f"Bearer {target.project.token}")
    assert answer.json()["objectstore"]["url"] == "http://snaps.lan:8400"


# --- What anybody may ask -------------------------------------------------------------------------------------------------------


def test_health_and_readiness_are_told_to_anybody(service: Service) -> None:
    assert service.http.get("/healthz").text == "OK"
    assert service.http.get("/health").text == "OK"
    assert service.http.get("/ready").text == "OK"
    ready = service.http.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"database": True, "store": True})


def test_metrics_are_numbers_for_prometheus_and_name_nobody(service: Service, target: Target) -> None:
    answer = service.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    samples = [line for line in answer.text.splitlines() if not line.startswith("#")]
    assert samples
    for line in samples:
        name, value = line.rsplit(" ", 1)
        assert name.startswith("snapshed_"), line
        float(value)
    assert 'snapshed_objects{kind="image"}' in answer.text
    assert target.project.slug not in answer.text


def test_the_description_names_every_route_and_no_page(service: Service) -> None:
    document = service.http.get("/openapi.json").json()
    assert document["info"]["title"] == "Snapshed"
    assert {
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/objects:batch/{use_case}/{scopes}/",
        "/v1/objects/{use_case}/{scopes}/{key}",
    } <= set(document["paths"])
    assert not any(path.startswith(("/sign-in", "/snapshots")) for path in document["paths"])


@pytest.mark.parametrize("path", ["/api/0/nothing/", "/v1/nothing", "/api/0/organizations/main/deletions"])
def test_an_unknown_route_is_a_404_in_json(service: Service, path: str) -> None:
    answer = service.http.get(path, headers={"authorization": f"Bearer {service.admin}"})
    assert answer.status_code in (404, 405)
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"detail"}


def test_the_wrong_method_is_a_405_in_json(service: Service, target: Target) -> None:
    for method, path in (
        ("PATCH", target.project.snapshot_path(target.snapshot)),
        ("PUT", target.project.deletions_path),
        ("PATCH", Session(target.project, "x").path(sha(png(1)))),
    ):
        answer = service.http.request(method, path)
        assert answer.status_code == 405, path
        assert set(answer.json()) == {"detail"}


def test_an_answer_that_comes_before_its_body_was_read_is_heard_by_the_client(service: Service) -> None:
    """A client that is refused while it still sends must see why, not a broken connection."""
    project = service.new_project()
    body = frames(json.dumps({"padding": "x" * 2**20}).encode()) + bytes(2**20)
    answer = project.seen_with("sntrys_unknown").create(body)
    assert answer.status_code == 401


def test_the_first_start_leaves_an_admin_token_only_its_owner_may_read(service: Service) -> None:
    file: Path = service.resources.settings.data / "admin-token"
    assert file.stat().st_mode & 0o777 == 0o600
    assert service.admin.startswith("sntrys_")
    answer = service.http.get(
        "/api/0/organizations/main/deletions/", headers={"authorization": f"Bearer {service.admin}"}
    )
    assert answer.status_code == 200
