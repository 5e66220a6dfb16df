"""Reading request bodies, the one asynchronous room: everything a client sends is taken in at once, then handed on.

A body is never held in memory beyond a mebibyte, and never parsed on the event loop: a client that is not read for a
tenth of a second gives up.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractContextManager
from typing import IO

import zstandard
from fastapi import Request

from snapshed.blobs.mapped import mapped
from snapshed.errors import Invalid, StoreUnavailable, TooLarge
from snapshed.settings import Settings

_IN_MEMORY = 2**20
_CHUNK = 2**16
_WINDOW = 2**27
"""The largest zstd window accepted, 128 MiB: what the command-line tool itself allows without asking."""


class Body:
    """A request body that has arrived whole. `size` in bytes, as sent. Lives as long as its request."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self.size = size

    def open(self) -> IO[bytes]:
        """The bytes from their beginning."""
        self._file.seek(0)
        return self._file

    def chunks(self) -> Iterator[bytes]:
        """The bytes in pieces of a mebibyte."""
        file = self.open()
        while piece := file.read(_IN_MEMORY):
            yield piece

    def mapped(self) -> AbstractContextManager[bytes | memoryview]:
        """The bytes as one view, without reading them into memory."""
        return mapped(self._file, self.size)

    def close(self) -> None:
        self._file.close()


def spooled(limit: Callable[[Settings], int]) -> Callable[[Request], AsyncGenerator[Body, None]]:
    """A dependency that takes in a body of at most `limit(settings)` bytes and gives its space back after the request.
    Raises TooLarge after draining a little, and StoreUnavailable when the scratch space is full."""

    async def spool(request: Request) -> AsyncGenerator[Body, None]:
        settings: Settings = request.app.state.resources.settings
        most = limit(settings)
        scratch = settings.data / "scratch"
        scratch.mkdir(exist_ok=True)
        # Unlinked from the start, so that no crash leaves it behind.
        file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, dir=str(scratch))  # noqa: SIM115  Body closes it
        size = 0
        try:
            async for piece in request.stream():
                size += len(piece)
                if size > most:
                    raise TooLarge(f"The request body is larger than {most} bytes; send less at once.")  # noqa: TRY301
                file.write(piece)
        except OSError:
            file.close()
            raise StoreUnavailable(
                "There is no room to take the upload in. Nothing was lost; try again later."
            ) from None
        except BaseException:
            file.close()
            raise
        body = Body(file, size)
        try:
            yield body
        finally:
            body.close()

    return spool


def unpacked(source: IO[bytes], encoding: str | None, most: int, what: str) -> bytes:
    """All bytes of `source`, undone from `encoding` (`zstd`, `identity` or None), never more than `most` in memory.
    Raises Invalid or TooLarge, naming `what`."""
    if encoding in (None, "", "identity"):
        data = source.read(most + 1)
        if len(data) > most:
            raise TooLarge(f"{what} is larger than {most} bytes.")
        return data
    if encoding != "zstd":
        raise Invalid("Unsupported Content-Encoding")
    return _unzstd(source, most, what)


def _unzstd(source: IO[bytes], most: int, what: str) -> bytes:
    # Frames of clients carry no size, so they are undone as a stream, which also bounds what a bomb can unfold.
    out = io.BytesIO()
    try:
        with zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(
            source, read_across_frames=True, closefd=False
        ) as reader:
            while piece := reader.read(_CHUNK):
                out.write(piece)
                if out.tell() > most:
                    raise TooLarge(f"{what} is larger than {most} bytes after decompression.")
    except zstandard.ZstdError:
        raise Invalid("Invalid zstd payload") from None
    return out.getvalue()
