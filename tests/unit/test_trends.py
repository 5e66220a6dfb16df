"""Days of events, the empty ones too."""

from __future__ import annotations

from datetime import UTC, date, datetime

from snapshed.domain.trends import by_day

NOW = datetime(2026, 3, 3, 1, tzinfo=UTC)


def test_days_are_summed_and_those_without_events_are_there() -> None:
    events = [
        ("snapshot", datetime(2026, 3, 1, 23, tzinfo=UTC), {"images": 3}),
        ("snapshot", datetime(2026, 3, 3, 0, tzinfo=UTC), {"images": 4}),
        ("comparison", datetime(2026, 3, 3, 0, tzinfo=UTC), {"total": 4, "changed": 1, "seconds": 2}),
        ("comparison", datetime(2026, 3, 3, 0, tzinfo=UTC), {"total": 4, "changed": 2, "seconds": 4.0}),
        ("comparison", datetime(2026, 3, 3, 0, tzinfo=UTC), {"total": 1, "changed": "many"}),
        ("snapshot", datetime(2025, 3, 3, tzinfo=UTC), {"images": 99}),
        ("other", datetime(2026, 3, 3, 0, tzinfo=UTC), {}),
    ]
    days = by_day(events, NOW, 3)
    assert [(day.day, day.snapshots, day.images, day.changed, day.seconds) for day in days] == [
        (date(2026, 3, 1), 1, 3, 0, None),
        (date(2026, 3, 2), 0, 0, 0, None),
        (date(2026, 3, 3), 1, 4, 3, 3.0),
    ]
    assert days[2].compared == 9
