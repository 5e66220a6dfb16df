"""A server of our own in a folder of its own: started, asked and stopped through the command line like anybody's.

No setting of the surrounding shell reaches it, and it does not outlive whoever started it in order.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from snapshed.cli.http import Document
from snapshed.errors import Broken, Unavailable

_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
"""How long an orderly stop may take; it is promised."""

_COMMAND = (sys.executable, "-m", "snapshed")


class Local:
    """A running `snapshed serve`."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.log = folder / "server.log"
        self.url = ""
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*_COMMAND, "serve", "--data", str(self.data), "--port", "0"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=_environment(),
                text=True,
                # Of a session of its own, so that Ctrl-C in a terminal reaches us, and we decide when it stops.
                start_new_session=True,
            )
        threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()

    def wait_until_ready(self) -> None:
        """Return when it takes requests; `url` is its address then. Raises Unavailable."""
        ready = self._line("Snapshed is ready at ", _START_SECONDS)
        if ready is None:
            raise Unavailable(f"The server did not start: {self._last_words()}")
        self.url = ready

    def sign_in_address(self) -> str | None:
        """The address that signs a person in once, if one was printed."""
        return self._line("Sign in once at ", 2.0)

    def admin_token(self) -> str:
        """The token that a first start makes."""
        return (self.data / "admin-token").read_text().strip()

    @property
    def is_running(self) -> bool:
        """Whether the server's process lives."""
        return self._process.poll() is None

    def reconcile(self) -> Document:
        """What `snapshed reconcile --level 2` says beside the running server. Raises Broken if they do not agree."""
        done = subprocess.run(
            [*_COMMAND, "reconcile", "--data", str(self.data), "--level", "2", "--json"],
            capture_output=True,
            text=True,
            env=_environment(),
            timeout=120,
        )
        if done.returncode != 0:
            raise Broken(f"Rows and objects do not agree: {' '.join((done.stdout or done.stderr).split())[:500]}")
        return cast("Document", json.loads(done.stdout))

    def stored_files(self) -> Iterator[Path]:
        """Every file in the object store, its journal included."""
        return (file for file in (self.data / "objects").rglob("*") if file.is_file())

    def stop(self) -> None:
        """Stop it in order. Raises Broken if it does not stop in time, or not with 0."""
        self._process.terminate()
        try:
            status = self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise Broken(f"The server did not stop within {_STOP_SECONDS:.0f} s.") from None
        if status != 0:
            raise Broken(f"The server stopped with {status}: {self._last_words()}")

    def end(self) -> None:
        """Make sure that it runs no more, in order if it can be."""
        if self.is_running:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _read(self, stream: IO[str] | None) -> None:
        # Read to the end, so that the server never waits for somebody to read.
        for line in stream or ():
            self._lines.put(line.strip())
        self._lines.put(None)

    def _line(self, beginning: str, seconds: float) -> str | None:
        """What follows `beginning` in the first line that has it; None if there is none in time."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return None
            if line is None:
                return None
            if line.startswith(beginning):
                return line.removeprefix(beginning)

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1][:500] if lines else "it said nothing."


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("SNAPSHED_")}
