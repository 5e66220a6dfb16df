"""The alerts: what they watch is measured, what they say to do is written, and they are read as they are meant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from api_fixtures import Project, Service, png, running
from typer.testing import CliRunner

from snapshed.cli import app
from snapshed.work import retention

DOCS = Path(__file__).parents[2] / "docs"
RULES = (DOCS / "alerts.yaml").read_text("utf-8")
ALERTS = re.findall(r"^      - alert: (\w+)$", RULES, re.MULTILINE)
EXPRESSIONS = re.findall(r"^        expr: (.+)$", RULES, re.MULTILINE)
METRIC = re.compile(r"snapshed_[a-z_]+")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("alerts") / "data") as service:
        yield service


@pytest.fixture(scope="module")
def project(service: Service) -> Project:
    """A project in which things have happened, so that every metric has a value."""
    project = service.new_project()
    project.delete(project.snapshot({"gone.png": png("gone")}))
    service.settle()
    project.snapshot({"here.png": png("here")})
    return project


def samples(service: Service) -> dict[str, list[tuple[str, float]]]:
    """Every sample of `/metrics` by its name: labels and value."""
    found: dict[str, list[tuple[str, float]]] = {}
    for line in service.http.get("/metrics").text.splitlines():
        if not line.startswith("#"):
            name, labels, value = re.fullmatch(r"(\w+)(\{.*\})? (\S+)", line).groups()  # type: ignore[union-attr]
            found.setdefault(name, []).append((labels or "", float(value)))
    return found


def test_every_metric_of_an_alert_is_measured(service: Service, project: Project) -> None:
    measured = samples(service)
    named = {name for expression in EXPRESSIONS for name in METRIC.findall(expression)}
    assert len(EXPRESSIONS) == len(ALERTS) > 10
    assert named
    assert named <= set(measured)


def test_every_label_of_an_alert_is_one_that_occurs(service: Service, project: Project) -> None:
    measured = samples(service)
    asked = [
        pair for expression in EXPRESSIONS for pair in re.findall(r'(snapshed_\w+)\{(\w+)!?="([^"]+)"', expression)
    ]
    assert asked
    for name, label, value in asked:
        assert any(f'{label}="{value}"' in labels for labels, _ in measured[name]), (name, label, value)


def test_every_alert_has_its_entry_and_every_entry_its_alert() -> None:
    headings = re.findall(r"^## (\w+)$", (DOCS / "alerts.md").read_text("utf-8"), re.MULTILINE)
    assert headings == ALERTS
    links = re.findall(r"^          runbook: docs/alerts\.md#(\w+)$", RULES, re.MULTILINE)
    assert links == [name.lower() for name in ALERTS]


def test_what_an_entry_says_to_run_exists() -> None:
    said = re.findall(r"`snapshed ([a-z]+(?: [a-z]+)?)", (DOCS / "alerts.md").read_text("utf-8"))
    assert said
    for words in said:
        assert CliRunner().invoke(app, [*words.split(), "--help"]).exit_code == 0, words


def test_an_installation_that_does_well_rings_no_bell(service: Service, project: Project) -> None:
    """The thresholds that compare one number with another, read as Prometheus would."""
    measured = samples(service)
    simple = [re.fullmatch(r"(snapshed_\w+)(?:\{([^}]+)\})? (>|==) (\d+)", expression) for expression in EXPRESSIONS]
    checked = [match.groups() for match in simple if match]
    assert len(checked) >= 8
    for name, labels, sign, limit in checked:
        for told, value in measured[name]:
            if labels is None or labels in told:
                assert not (value > float(limit) if sign == ">" else value == float(limit)), name


def test_rules_and_their_runs_are_counted(service: Service, project: Project) -> None:
    def value(name: str) -> float:
        ((_, found),) = samples(service)[f"snapshed_{name}"]
        return found

    deleted_before, snapshots_before = value("retention_deleted_total"), value("snapshots")
    for number in range(2):
        project.snapshot(
            {"a.png": png(number)}, head_ref="topic", head_repo_name="us/web", pr_number=7, provider="github"
        )
    assert value("snapshots") == snapshots_before + 2
    service.clock.push(timedelta(days=31))
    assert value("retention_oldest_run_seconds") > 86400
    service.settle()
    assert value("retention_deleted_total") == deleted_before + 1
    assert value("retention_oldest_run_seconds") < 3600
    assert (value("retention_failing"), value("retention_left")) == (0, 0)
    assert value("retention_paused") == 0
    retention.pause(service.resources, "for a test")
    assert value("retention_paused") == 1
    retention.confirm(service.resources)
