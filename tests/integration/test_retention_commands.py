"""`snapshed retention` and holds of branches, as an operator and as an administrator's program meet them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_fixtures import Service, clean_environment, png, running
from fixtures.world import World
from test_reconcile_command import address

COMMAND = (sys.executable, "-m", "snapshed")


def snapshed(world: World, *words: str, status: int = 0) -> str:
    """What a command says on standard output, or in one sentence on standard error."""
    done = subprocess.run(
        [*COMMAND, *words, "--data", str(world.resources.settings.data)],
        capture_output=True,
        text=True,
        env=clean_environment() | {"SNAPSHED_DATABASE_URL": address(world)},
        timeout=120,
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if status == 0 else done.stderr


def upload(world: World, name: str, days_ago: int, **fields: Any) -> int:
    """A snapshot, dated back: the commands go by the real clock."""
    fields = {"head_repo_name": "us/web", "provider": "github"} | fields
    number = world.upload({f"{name}.png": name.encode()}, **fields)
    with world.resources.database.transaction() as tx:
        tx.execute(
            "UPDATE artifact SET created_at = now() - make_interval(days => %s) WHERE number = %s", [days_ago, number]
        )
    return number


def test_an_operator_looks_sets_looks_again_and_runs(world: World) -> None:
    base = upload(world, "base", 60, head_ref="main")
    old = upload(world, "old", 50, head_ref="topic", pr_number=7)
    new = upload(world, "new", 40, head_ref="topic", pr_number=7)

    assert (
        snapshed(world, "retention", "show") == "main/main  30 days  90 days  365 days  main, master  default  never\n"
    )
    told = snapshed(world, "retention", "preview")
    assert re.search(rf"^{old}  web  goes  pull request  [0-9-]+  superseded by snapshot {new} on [0-9-]+,", told, re.M)
    assert re.search(
        rf"^{new}  web  stays  pull request  [0-9-]+  pull request 7 is quiet since .* for 90 days$", told, re.M
    )
    assert re.search(rf"^{base}  web  stays  default branch  –  the newest whole base of app web$", told, re.M)
    assert re.search(r"^1 snapshot would go \(pull request: 1; [0-9.]+ bytes of objects\); 2 stay\.$", told, re.M)
    assert world.count("deletion") == 0

    snapshed(world, "retention", "set", "--superseded", "forever", "--quiet", "30d")
    shown = json.loads(snapshed(world, "retention", "show", "--json"))
    assert shown[0]["superseded_days"] is None
    assert shown[0]["quiet_days"] == 30
    assert shown[0]["set_by"] == "operator"
    document = json.loads(snapshed(world, "retention", "preview", "--deleted", "--json"))
    assert [item["snapshot"] for item in document["snapshots"]] == [str(old), str(new)]
    assert (document["deletes"], document["paused_for"]) == (2, None)
    assert document["frees_bytes"] > 0

    assert snapshed(world, "retention", "run") == "main/main: 2 snapshots deleted, 1 kept.\n"
    assert snapshed(world, "retention", "run", "--project", "main/main") == "main/main: 0 snapshots deleted, 1 kept.\n"
    world.tidy()
    assert world.stored(b"base", b"old", b"new") == {b"base"}


def test_paused_rules_say_why_and_how_to_let_them_delete(world: World) -> None:
    upload(world, "old", 50, head_ref="topic", pr_number=7)
    upload(world, "new", 40, head_ref="topic", pr_number=7)
    snapshed(world, "retention", "pause", "--reason", "We look into something.")
    for command in ("show", "preview"):
        assert "No rule deletes anything: We look into something." in snapshed(world, "retention", command)
    refused = snapshed(world, "retention", "run", status=2)
    assert "We look into something." in refused
    assert world.count("deletion") == 0
    assert snapshed(world, "retention", "confirm") == "Rules delete from now on.\n"
    assert "1 snapshot deleted" in snapshed(world, "retention", "run")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["set"], "Nothing to set"),
        (["set", "--quiet", "soon"], "is no number of days"),
        (["set", "--quiet", "0"], "from 1 to 36500"),
        (["set", "--project", "nobody/nothing", "--quiet", "3"], "There is no project nobody/nothing"),
        (["preview", "--project", "nothing"], "There is no project nothing"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_refused_in_one_sentence(world: World, words: list[str], said: str) -> None:
    refused = snapshed(world, "retention", *words, status=2)
    assert said in refused
    assert refused.count("\n") == 1
    assert world.count("retention_rule") == 0


def test_a_branch_is_held_and_released_on_the_command_line(world: World) -> None:
    snapshed(world, "project", "add", "main/other")
    assert "Say which project" in snapshed(world, "hold", "add", "--branch", "release", "--reason", "x", status=2)
    hold = snapshed(
        world, "hold", "add", "--branch", "release", "--project", "main/main", "--reason", "an audit"
    ).strip()
    assert snapshed(world, "hold", "list") == f"{hold}  main/main branch release  until released  an audit\n"
    (listed,) = json.loads(snapshed(world, "hold", "list", "--json"))
    assert (listed["branch"], listed["snapshot"], listed["reason"]) == ("release", None, "an audit")
    assert snapshed(world, "hold", "release", hold) == "Branch release: 1 hold is released.\n"
    assert snapshed(world, "hold", "list") == ""
    for words in ([], ["12", "--branch", "release"], ["12", "--project", "main"]):
        snapshed(world, "hold", "add", *words, "--reason", "x", status=2)


# --- Over HTTP -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(Path(tmp_path_factory.mktemp("retention")) / "data") as service:
        yield service


def test_an_administrator_reads_and_sets_the_rule_and_looks_at_the_plan(service: Service) -> None:
    project = service.new_project()
    number = project.snapshot({"a.png": png("kept by rule")})
    path = f"/api/0/organizations/{project.org}/projects/{project.slug}/retention/"
    assert project.get(path)["default_days"] == 365
    answer = project.ask("PUT", path, json={"default_days": None, "default_branches": ["trunk"]})
    assert answer.status_code == 200
    assert project.get(path) == answer.json()
    assert (answer.json()["default_days"], answer.json()["default_branches"]) == (None, ["trunk"])
    assert answer.json()["set_by"] == "token:test"
    refused = project.ask("PUT", path, json={"default_days": -3})
    assert refused.status_code == 400
    assert "default_days" in refused.json()["detail"]
    previewed = project.get(f"{path}preview/")
    assert (previewed["deletes"], previewed["keeps"]) == (0, 1)
    assert previewed["snapshots"][0]["snapshot"] == str(number)
    assert previewed["snapshots"][0]["reason"] == "the newest whole base of app web"


def test_a_branch_is_held_over_http_and_refuses_a_deletion(service: Service) -> None:
    project = service.new_project()
    number = project.snapshot({"a.png": png("held")}, head_ref="release")
    body = {"project": project.slug, "branch": "release", "reason": "an audit"}
    hold = project.ask("POST", project.holds_path, json=body)
    assert hold.status_code == 201
    assert [found["branch"] for found in project.get(project.holds_path) if found["project"] == project.slug] == [
        "release"
    ]
    refused = project.ask("DELETE", project.snapshot_path(number))
    assert refused.status_code == 409
    assert "with its branch release: an audit" in refused.json()["detail"]
    both = project.ask("POST", project.holds_path, json=body | {"snapshot": number})
    assert both.status_code == 400
    assert project.ask("DELETE", f"{project.holds_path}{hold.json()['id']}/").status_code == 204
    assert [found for found in project.get(project.holds_path) if found["project"] == project.slug] == []
