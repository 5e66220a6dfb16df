"""The HTTP process: its route table, its lifespan, and `serve`, which also keeps a worker and the database alive.

Nothing is decided here; requests go through the doors, work through `work`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from snapshed import __version__, api, problems, ui
from snapshed.errors import Behind, Invalid, Unavailable
from snapshed.logs import logger
from snapshed.resources import Resources, opened
from snapshed.settings import Settings
from snapshed.work import access, deletion, recovery

_KEEP_ALIVE_SECONDS = 90
"""Clients break when an idle connection is closed silently; 75 s is promised."""

_WATCH_SECONDS = 0.5
_STOP_SECONDS = 6.0
_BY_ADDRESS = ("/healthz", "/readyz", "/health", "/ready", "/keda")

_log = logger("serve")


def app(resources: Resources) -> FastAPI:
    """The whole HTTP surface over opened resources."""
    built = FastAPI(
        title="Snapshed",
        version=__version__,
        summary="Visual snapshots, where delete means delete.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    built.state.resources = resources
    problems.install(built, ui.error_page)
    built.include_router(api.router)
    built.include_router(ui.router)
    if resources.settings.url:
        _refuse_foreign_hosts(built, urlsplit(resources.settings.url).netloc)
    return built


def _refuse_foreign_hosts(built: FastAPI, host: str) -> None:
    @built.middleware("http")
    async def check(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:  # pyright: ignore[reportUnusedFunction]
        # Health checks come by address, not by name.
        if request.headers.get("host") != host and request.url.path not in _BY_ADDRESS:
            return JSONResponse({"detail": "This host name is not served here."}, 400)
        return await go_on(request)


def serve(settings: Settings, host: str, port: int, *, with_worker: bool) -> None:
    """Serve until SIGTERM or SIGINT. Nothing of ours is left behind by an orderly stop."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    with _opened(settings) as resources, _listening(host, port) as listener:
        address = settings.url or f"http://{host}:{listener.getsockname()[1]}"
        once = access.first_start(resources, address)
        access.serve_at(resources, address)
        server = uvicorn.Server(
            uvicorn.Config(
                app(resources),
                log_config=None,
                access_log=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=4,
                server_header=False,
            )
        )
        keeper = Keeper(resources, with_worker=with_worker)
        _stop_on_signals(server, keeper)
        keeper.start()
        announcing = threading.Thread(target=_announce, args=(server, host, listener, address, once), daemon=True)
        announcing.start()
        try:
            server.run(sockets=[listener])
        finally:
            keeper.stop()


@contextmanager
def _opened(settings: Settings) -> Generator[Resources]:
    """The installation. A database that is older than the store catches up first, and the log names what was found."""
    with ExitStack() as stack:
        try:
            resources = stack.enter_context(opened(settings, connections=24))
        except Behind:
            with opened(settings, connections=4, matched=recovery.behind) as older:
                _tell(recovery.catch_up(older, lambda _what, _done: None, deletion.withdraw))
            resources = stack.enter_context(opened(settings, connections=24))
        yield resources


def _tell(done: recovery.Recovered) -> None:
    for damage in done.damages:
        _log.error("object lost", key=damage.key, kind=damage.kind, snapshots=list(damage.snapshots))
    for left in done.left_out:
        _log.error(
            "not brought back", kind=left.manifest.kind, snapshot=left.manifest.number, missing=len(left.missing)
        )
    for key, problem in done.unreadable.items():
        _log.error("cannot be read", key=key, problem=problem)
    _log.warning(
        "the database has caught up with the store",
        epoch=done.epoch,
        snapshots=done.snapshots,
        builds=done.builds,
        deleted_again=[str(one) for one in done.deleted_again],
        lost=len(done.damages),
        removed=sum(count for count, _ in done.removed.values()),
    )


def _leave(*_: object) -> None:
    """A signal while we still open things: close what is open and leave in good order."""
    raise SystemExit(0)


def _listening(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise Invalid(f"Port {port} on {host} cannot be used; another program has it. Choose another --port.") from None
    return listener


def _stop_on_signals(server: uvicorn.Server, keeper: Keeper) -> None:
    # The server would raise the signal again after stopping, which skips our own cleaning up; so its handlers find
    # ones of ours to go back to.
    def stop(*_: object) -> None:
        server.should_exit = True
        keeper.ask_to_stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def _announce(server: uvicorn.Server, host: str, listener: socket.socket, address: str, once: str | None) -> None:
    tick = threading.Event()
    while not server.started and not server.should_exit:
        tick.wait(0.01)
    if server.started:
        port = listener.getsockname()[1]
        sys.stdout.write(f"Snapshed is ready at http://{host}:{port}\n")
        if once:
            sys.stdout.write(f"Sign in once at {address}{once}\n")
        sys.stdout.flush()


class Keeper:
    """Keeps a worker and the embedded database alive from a thread of its own."""

    def __init__(self, resources: Resources, *, with_worker: bool) -> None:
        self._resources = resources
        self._with_worker = with_worker
        self._stopping = threading.Event()
        self._worker: subprocess.Popen[bytes] | None = None
        self._asked_at = 0.0
        self._thread = threading.Thread(target=self._watch, name="keeper")

    def start(self) -> None:
        """Start watching, the worker first."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Let the worker stop while the last requests are still being answered. Returns at once."""
        self._stopping.set()
        self._asked_at = self._asked_at or time.monotonic()
        worker = self._worker
        if worker is not None:
            worker.terminate()

    def stop(self) -> None:
        """Stop watching and wait for the worker; it is killed if it does not stop in time."""
        self.ask_to_stop()
        self._thread.join()
        worker = self._worker
        if worker is None:
            return
        worker.terminate()
        if worker.stdin is not None:
            with suppress(OSError):
                worker.stdin.close()
        try:
            worker.wait(max(0.5, self._asked_at + _STOP_SECONDS - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()

    def _watch(self) -> None:
        wait = _WATCH_SECONDS
        while not self._stopping.is_set():
            try:
                if self._resources.embedded is not None and self._resources.embedded.ensure_running():
                    _log.warning("database was down and has been started again")
            except (Unavailable, OSError) as error:
                _log.error("database cannot be started", error_class=type(error).__name__)
            if self._with_worker and (self._worker is None or self._worker.poll() is not None):
                if self._worker is not None:
                    _log.warning("worker died and is started again", status=self._worker.returncode)
                    self._stopping.wait(wait)
                    wait = min(wait * 2, 10.0)
                if not self._stopping.is_set():
                    try:
                        self._worker = self._start_worker()
                    except OSError as error:
                        _log.error("worker cannot be started", error_class=type(error).__name__)
            self._stopping.wait(_WATCH_SECONDS)

    def _start_worker(self) -> subprocess.Popen[bytes]:
        # Its standard input is a pipe that we hold: when we die, however, it ends, and the worker stops by itself.
        command = [sys.executable, "-m", "snapshed", "worker", "--with-parent"]
        return subprocess.Popen(
            [*command, "--data", str(self._resources.settings.data)],
            stdin=subprocess.PIPE,
            env=dict(os.environ),
            start_new_session=True,
        )
