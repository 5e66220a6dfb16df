"""Which bytes of an object a request asks for. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from snapshed.errors import Invalid

_RANGE = re.compile(r"([0-9]{0,18})\s*-\s*([0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes from `start` up to, but not including, `end`."""

    start: int
    end: int

    def content_range(self, total: int) -> str:
        return f"bytes {self.start}-{self.end - 1}/{total}"


def parse(header: str | None, total: int) -> Span | Literal["whole", "beyond"]:
    """The asked part of `total` bytes; `whole` without a header or for several parts at once, which are not given;
    `beyond` where it begins after the end. Raises Invalid.

    >>> parse("bytes=0-3", 10), parse("bytes=-4", 10), parse("bytes=10-", 10)
    (Span(start=0, end=4), Span(start=6, end=10), 'beyond')
    """
    if header is None:
        return "whole"
    unit, _, asked = header.partition("=")
    if "," in asked:
        return "whole"
    match = _RANGE.fullmatch(asked.strip())
    if unit.strip().lower() != "bytes" or match is None or not (match[1] or match[2]):
        raise Invalid("The header range needs the form bytes=0-99, bytes=100- or bytes=-100.")
    if not match[1]:
        last = int(match[2])
        if last == 0:
            raise Invalid("The header range asks for the last 0 bytes; ask for at least one.")
        return Span(max(0, total - last), total) if total else "beyond"
    start = int(match[1])
    end = int(match[2]) + 1 if match[2] else total
    if match[2] and end <= start:
        raise Invalid("The header range ends before it begins.")
    return Span(start, min(end, total)) if start < total else "beyond"
