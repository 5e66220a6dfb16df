"""Settings are read once, all problems are told together, and secrets never show."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from snapshed.errors import Invalid
from snapshed.failpoints import Failed, Failpoints
from snapshed.settings import Secret, Settings, duration, size


def test_nothing_set_means_embedded_and_on_disk() -> None:
    settings = Settings.from_env({})
    assert (settings.data, settings.database_url, settings.store_url) == (Path("snapshed-data"), None, None)
    assert settings.session_ttl == timedelta(hours=1)
    assert settings.max_file == 256 * 2**20


def test_all_problems_are_told_together() -> None:
    with pytest.raises(Invalid) as refused:
        Settings.from_env({"SNAPSHED_SESSION_TTL": "7h", "SNAPSHED_PUT_LIMIT": "soon", "SNAPSHED_COLOUR": "red"})
    for part in (
        "SNAPSHED_SESSION_TTL may be at most 6h",
        "SNAPSHED_PUT_LIMIT needs",
        "SNAPSHED_COLOUR is not a setting",
    ):
        assert part in str(refused.value)


@pytest.mark.parametrize("text", ["0s", "-1s", "nan", "inf", "1", "1 year", "1e3s", ""])
def test_a_length_of_time_is_positive_and_finite(text: str) -> None:
    with pytest.raises(ValueError, match=r"needs|longer"):
        duration(text)


def test_sizes_and_durations_are_read_as_people_write_them() -> None:
    assert duration("1.5m") == timedelta(seconds=90)
    assert size("256 MiB") == 2**28
    assert size("1000") == 1000


def test_a_secret_does_not_show_in_what_is_printed_of_settings() -> None:
    settings = Settings.from_env({"SNAPSHED_DATABASE_URL": "postgresql://u:hidden@h/d"})
    assert "hidden" not in repr(settings)
    assert isinstance(settings.database_url, Secret)


def test_an_unknown_failpoint_is_refused_at_start() -> None:
    for text in ("nowhere=kill", "upload.stored=explode", "upload.stored@0=kill", "upload.stored"):
        with pytest.raises(Invalid, match="SNAPSHED_FAILPOINT"):
            Failpoints(text)


def test_a_failpoint_acts_on_its_nth_passing_and_once(capsys: pytest.CaptureFixture[str]) -> None:
    points = Failpoints("removal.sent@2=raise,upload.stored=sleep:0")
    points.reach("removal.sent")
    with pytest.raises(Failed):
        points.reach("removal.sent")
    points.reach("removal.sent")
    points.reach("upload.stored")
    assert capsys.readouterr().err == "failpoint removal.sent raise\nfailpoint upload.stored sleep:0\n"


def test_a_failpoint_that_is_not_set_does_nothing() -> None:
    Failpoints(None).reach("upload.stored")
