"""The image files of a folder, found and measured the way `sentry-cli` does it.

No image is decoded here, and none is held in memory.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from PIL import Image

from snapshed.domain import manifest
from snapshed.errors import Invalid, TooLarge

MOST_PIXELS = 40_000_000
_ENDINGS = (".png", ".jpg", ".jpeg")
_SHOWN = 10
"""How many names a sentence lists."""

_Id = tuple[int, int]
_Measured = tuple[str, Path, int, int]


@dataclass(frozen=True, slots=True)
class File:
    """One image file; `facts` are what the JSON file of the same name beside it says."""

    name: str
    path: Path
    size: int
    digest: str
    width: int
    height: int
    facts: dict[str, Any]

    @property
    def entry(self) -> dict[str, Any]:
        """The image as a manifest lists it; what was measured wins over what was written beside it."""
        return {**self.facts, "content_hash": self.digest, "width": self.width, "height": self.height}


@dataclass(frozen=True, slots=True)
class Scan:
    """What a folder holds: images by name, and a sentence about everything that was left out."""

    files: tuple[File, ...]
    left_out: tuple[str, ...]


def scan(folder: Path) -> Scan:
    """Find and measure every image below a folder. Raises Invalid or TooLarge; unreadable files are only left out.

    | entry                               |                                          |
    | .png, .jpg, .jpeg, in any case      | an image                                 |
    | its name starts with a dot          | skipped with everything below            |
    | a symbolic link                     | followed, unless it leads back to itself |
    | NAME.json beside an image NAME      | facts of that image                      |
    | a PNG or JPEG only by its ending    | left out with a warning                  |
    """
    left_out: list[str] = []
    measured: list[_Measured] = []
    for name, path in _named(folder, left_out):
        size = size_of(path)
        if size is None:
            left_out.append(f"{name} is not a readable PNG or JPEG file and is left out.")
        else:
            measured.append((name, path, *size))
    _refuse_huge(measured)
    return _scanned(measured, left_out)


def survey(folder: Path) -> Scan:
    """Like `scan`, but broken and oversized images are images too: one that is not readable has the size 0 x 0, so that
    whoever compares can say what is wrong with it. Only what has no bytes at all is left out. Raises Invalid."""
    left_out: list[str] = []
    measured: list[_Measured] = []
    for name, path in _named(folder, left_out):
        width, height = size_of(path) or (0, 0)
        measured.append((name, path, width, height))
    return _scanned(measured, left_out)


def _named(folder: Path, left_out: list[str]) -> list[tuple[str, Path]]:
    if not folder.is_dir():
        raise Invalid(f"{folder} is not a folder.")
    found = sorted(_walk(folder, "", frozenset(), left_out))
    for name, _ in found:
        manifest.check_name(name)
    return found


def _scanned(measured: list[_Measured], left_out: list[str]) -> Scan:
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        files = list(pool.map(partial(_read, left_out), measured))
    return Scan(tuple(file for file in files if file is not None), tuple(left_out))


def _walk(folder: Path, prefix: str, above: frozenset[_Id], left_out: list[str]) -> Iterator[tuple[str, Path]]:
    try:
        facts = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        left_out.append(f"The folder {prefix or folder} cannot be read ({error.strerror}) and is left out.")
        return
    here = (facts.st_dev, facts.st_ino)
    if here in above:
        left_out.append(f"The folder {prefix} leads back to itself and is left out.")
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        name = f"{prefix}{entry.name}"
        if entry.is_dir():
            yield from _walk(Path(entry.path), f"{name}/", above | {here}, left_out)
        elif entry.name.lower().endswith(_ENDINGS):
            yield name, Path(entry.path)


def size_of(file: Path | bytes) -> tuple[int, int] | None:
    """Width and height from the header alone; None if it is not that of a PNG or JPEG file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=("PNG", "JPEG")) as image:
                return image.size
    except Image.DecompressionBombError:
        # Pillow refuses from its own limit on, which lies above ours; how far above makes no difference.
        return MOST_PIXELS + 1, 1
    except (OSError, ValueError, SyntaxError, EOFError, OverflowError):
        return None


def _refuse_huge(measured: list[_Measured]) -> None:
    huge = [name for name, _, width, height in measured if width * height > MOST_PIXELS]
    if huge:
        raise TooLarge(f"An image may have {MOST_PIXELS:,} pixels; larger here: {listed(huge)}.")


def listed(names: list[str]) -> str:
    """Names in a sentence, the first few of them."""
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _read(left_out: list[str], measured: _Measured) -> File | None:
    name, path, width, height = measured
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        left_out.append(f"{name} cannot be read ({error.strerror}) and is left out.")
        return None
    return File(name, path, size, digest, width, height, _facts(name, path.with_suffix(".json"), left_out))


def _facts(name: str, beside: Path, left_out: list[str]) -> dict[str, Any]:
    try:
        value: object = json.loads(beside.read_bytes())
        # What Python reads but JSON does not know (NaN, half a character) would make the server refuse everything.
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        left_out.append(f"{beside.name}, beside {name}, is no JSON object and is left out.")
        return {}
    return cast("dict[str, Any]", value)
