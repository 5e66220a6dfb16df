"""Where an object lives: its use case, its scopes and its key, and which scopes a registered key reaches.

Scopes are plain namespaces: their order counts, and they have nothing to do with organizations and projects here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from snapshed.errors import Invalid

OBJECTS_ORG = 0
OBJECTS_PROJECT = 0
"""The place of the installation itself, where the bytes of objects belong. No person and no token reaches it."""

MOST_SCOPES = 512
MOST_KEY = 1024
"""Bytes. Together with a use case they fit into one entry of an index."""

ANY = "*"
_USE_CASE = re.compile(r"[A-Za-z0-9_-]{3,64}")
_WORD = r"[A-Za-z0-9_\-()$!+']+"
_SCOPE = re.compile(rf"({_WORD})=({_WORD})")
_PATTERN = re.compile(rf"({_WORD})=({_WORD}|\*)")
_NONE = "_"

Scopes = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Place:
    """A namespace of objects: a use case and scopes as text, checked."""

    use_case: str
    scopes: str


def parse_scopes(text: str) -> Scopes:
    """`org=1;project=2` as pairs in their order; `_` is none at all. Raises Invalid."""
    if text == _NONE:
        return ()
    pairs = [_SCOPE.fullmatch(part) for part in text.split(";")] if len(text) <= MOST_SCOPES else [None]
    found = tuple((pair[1], pair[2]) for pair in pairs if pair)
    if len(found) != len(pairs) or len(dict(found)) != len(found):
        raise Invalid(
            "The scopes in the path need the form org=1;project=2: each name once, of letters, digits and _-()$!+', "
            f"at most {MOST_SCOPES} characters in all; _ stands for none."
        )
    return found


def check_use_case(text: str) -> None:
    """Raise Invalid for what is no name of a use case."""
    if not _USE_CASE.fullmatch(text):
        raise Invalid("The use case in the path needs 3 to 64 letters, digits, - and _.")


def check_key(key: str) -> None:
    """Raise Invalid for a key that is empty, too long or cannot be shown."""
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise Invalid("The object's key is not UTF-8.") from None
    if not 0 < size <= MOST_KEY:
        raise Invalid(f"The object's key has {size} bytes; it needs 1 to {MOST_KEY}.")
    if any(ord(letter) < 0x20 or 0x7F <= ord(letter) < 0xA0 for letter in key):
        raise Invalid("The object's key may not contain control characters.")


# --- Patterns -------------------------------------------------------------------------------------------------------


def check_pattern(text: str) -> None:
    """Raise Invalid for what is no pattern: `*`, `_`, or pairs whose values may be `*`, and `*` last for "and more"."""
    *pairs, last = text.split(";")
    named = pairs if last == ANY else [*pairs, last]
    whole = len(text) <= MOST_SCOPES and all(_PATTERN.fullmatch(pair) for pair in named)
    if text not in (ANY, _NONE) and not whole:
        raise Invalid(
            f"{text[:80]!r} is no pattern of scopes; write org=*;project=2, * alone for all scopes, _ for none, "
            "or ;* at the end for whatever follows."
        )


def matches(pattern: str, scopes: Scopes) -> bool:
    """Whether a pattern reaches these scopes: the same names in the same order, each value equal or `*`.

    >>> matches("org=*;project=2", (("org", "1"), ("project", "2")))
    True
    >>> matches("org=1", (("org", "1"), ("project", "2"))), matches("org=1;*", (("org", "1"), ("project", "2")))
    (False, True)
    """
    parts = [] if pattern == _NONE else pattern.split(";")
    open_ended = bool(parts) and parts[-1] == ANY
    named = parts[:-1] if open_ended else parts
    if len(scopes) < len(named) or (len(scopes) > len(named) and not open_ended):
        return False
    return all(part in (f"{name}={value}", f"{name}={ANY}") for part, (name, value) in zip(named, scopes, strict=False))
