"""Downloading a snapshot: its archive, unpacked into a folder that nothing of it can leave."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from snapshed.cli.http import Server
from snapshed.cli.terminal import Output, printable
from snapshed.errors import Broken, Invalid

_CHUNK = 2**20


@dataclass(frozen=True, slots=True)
class Downloaded:
    """What was written: the folder, how many files, and their bytes."""

    folder: Path
    files: int
    bytes: int


def download(server: Server, number: str, folder: Path, output: Output) -> Downloaded:
    """Write every image of a snapshot, and its manifest, below `folder`; what is there already is overwritten.

    Raises Invalid when the folder cannot be used, and Broken for an archive that is damaged or would write elsewhere;
    nothing is written then.
    """
    if folder.exists() and not folder.is_dir():
        raise Invalid(f"{printable(str(folder))} is a file; give a folder with --out.")
    with tempfile.TemporaryFile() as file:
        for piece in server.stream(f"preprodartifacts/snapshots/{number}/archive/", download=""):
            file.write(piece)
        file.seek(0)
        try:
            with zipfile.ZipFile(file) as archive:
                entries = list(_safe(archive))
                return _unpacked(archive, entries, folder, output)
        except (zipfile.BadZipFile, EOFError):
            raise Broken("The archive arrived damaged; download it again.") from None
        except OSError as problem:
            raise Invalid(f"{printable(str(folder))} cannot be written to ({problem.strerror}).") from None


def _safe(archive: zipfile.ZipFile) -> Iterator[zipfile.ZipInfo]:
    for entry in archive.infolist():
        path = PurePosixPath(entry.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in entry.filename or not path.parts or entry.is_dir():
            raise Broken(f"The archive names {printable(entry.filename)!r}, outside the folder; nothing was written.")
        yield entry


def _unpacked(archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo], folder: Path, output: Output) -> Downloaded:
    size = 0
    root = folder.resolve()
    with output.progress("Unpacking", len(entries)) as advance:
        for entry in entries:
            target = root / entry.filename
            # A link that was in the folder before could lead out of it.
            if not target.parent.resolve().is_relative_to(root) or target.is_symlink():
                raise Broken(f"{printable(entry.filename)!r} would be written outside the folder.")
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as source, target.open("wb") as file:
                while piece := source.read(_CHUNK):
                    file.write(piece)
                    size += len(piece)
            advance(1)
    return Downloaded(folder, len(entries), size)
