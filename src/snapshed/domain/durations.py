"""Lengths of time as the blob API writes them: many spellings come in, one goes out.

Years and months have fixed lengths, as in the clients: 365.25 and 30.44 days.
"""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal

LONGEST = timedelta(days=36525)
"""A hundred years; beyond it, whoever asks means "for ever", which has a word of its own."""

_DAY = 86400
_SECONDS: dict[str, Decimal] = {
    word: Decimal(seconds)
    for words, seconds in (
        ("ns nsec nanos", "0.000000001"),
        ("us usec µs", "0.000001"),
        ("ms msec millis", "0.001"),
        ("s sec secs second seconds", "1"),
        ("m min mins minute minutes", "60"),
        ("h hr hrs hour hours", "3600"),
        ("d day days", str(_DAY)),
        ("w wk wks week weeks", str(7 * _DAY)),
        ("M month months", "2630016"),
        ("y yr yrs year years", "31557600"),
    )
    for word in words.split()
}
_TERM = re.compile(r"\s*([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([A-Za-zµ]+)\s*")


def parse(text: str) -> timedelta:
    """`30d`, `2months 29days 2h`, `1.5 h`, `0s`. Raises ValueError, whose text completes "… needs to be".

    >>> parse("1day 12h")
    datetime.timedelta(days=1, seconds=43200)
    """
    seconds, at = Decimal(0), 0
    while at < len(text) or not text:
        term = _TERM.match(text, at)
        if term is None or term[2] not in _SECONDS:
            raise ValueError("a length of time such as 30d or 1h 30m")
        seconds += Decimal(term[1]) * _SECONDS[term[2]]
        at = term.end()
    if seconds > int(LONGEST.total_seconds()):
        raise ValueError("at most 36525d")
    return timedelta(microseconds=int(seconds * 1_000_000))


def written(length: timedelta) -> str:
    """In days, hours, minutes and whole seconds, the only units that every client reads.

    >>> written(timedelta(days=400, seconds=90)), written(timedelta())
    ('400d 1m 30s', '0s')
    """
    minutes, seconds = divmod(length.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    terms = ((length.days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s"))
    return " ".join(f"{number}{unit}" for number, unit in terms if number) or "0s"
