"""The page about webhooks names every event, and its example accepts what is really sent and nothing else."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from snapshed.domain import webhooks

PAGE = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text("utf-8")


def test_every_event_is_explained() -> None:
    assert set(re.findall(r"^\| `([a-z.]+)` \|", PAGE, re.MULTILINE)) == set(webhooks.EVENTS)


def test_the_example_accepts_our_signature_and_no_other() -> None:
    example: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0], example)  # noqa: S102  our own page
    is_ours, now, body = example["is_from_snapshed"], datetime.now(UTC), b'{"event": "review.decided"}'
    assert is_ours("s", webhooks.signature("s", now, body), body)
    assert not is_ours("s", webhooks.signature("s", now, body), body + b" ")
    assert not is_ours("s", webhooks.signature("t", now, body), body)
    assert not is_ours("s", webhooks.signature("s", now - timedelta(hours=1), body), body)
