"""Jobs and wake-ups. A job is deferred by name inside the caller's transaction, so it exists if and only if that commits.

Nothing about deletion depends on this room: what is to be removed stands in our own tables, jobs and NOTIFY only wake.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Literal, LiteralString, Self

import psycopg
from procrastinate import App, PsycopgConnector, SyncPsycopgConnector
from procrastinate.exceptions import AlreadyEnqueued, ConnectorException
from procrastinate.jobs import DeleteJobCondition

from snapshed.db.pool import Tx
from snapshed.logs import logger

TaskName = Literal["compare"]
CHANNEL: LiteralString = "snapshed_tidy"
"""What a worker listens to; a notification says that a deletion, session or trace has something due."""

GRACE_SECONDS = 4.0
"""How long a stopping worker waits for its running job before it gives the job back."""

_log = logger("queue")


class Queue(AbstractContextManager["Queue"]):
    """Defers jobs. Thread-safe."""

    def __init__(self, dsn: str) -> None:
        self._app = App(connector=SyncPsycopgConnector(conninfo=dsn, min_size=0, max_size=2))

    def __enter__(self) -> Self:
        self._app.open()
        return self

    def __exit__(self, *details: object) -> None:
        self._app.close()

    def defer(self, tx: Tx, task: TaskName, arguments: Mapping[str, str]) -> None:
        """Add a job in the caller's transaction."""
        with _told():
            self._app.configure_task(task, connection=tx).defer(**arguments)

    def defer_once(self, tx: Tx, task: TaskName, arguments: Mapping[str, str]) -> None:
        """Add a job unless one with the same arguments, added by this function, still waits."""
        lock = "/".join([task, *arguments.values()])
        # The conflict would abort the caller's transaction, so it happens inside a savepoint.
        with _told(), suppress(AlreadyEnqueued), tx.transaction():
            self._app.configure_task(task, connection=tx, queueing_lock=lock).defer(**arguments)

    @staticmethod
    def wake(tx: Tx) -> None:
        """Wake the workers' tidying loop when this transaction commits."""
        tx.execute("SELECT pg_notify('snapshed_tidy', '')")


@contextmanager
def _told() -> Generator[None]:
    """What goes wrong in the queue's own statements leaves as the driver's error, like that of any other statement."""
    try:
        yield
    except ConnectorException as error:
        if isinstance(error.__cause__, psycopg.Error):
            raise error.__cause__ from error
        raise


def run_worker(
    dsn: str, tasks: Mapping[TaskName, Callable[..., Any]], stopping: threading.Event, *, concurrency: int
) -> None:
    """Run jobs until `stopping` is set. Jobs whose worker died are taken back first."""
    app = App(connector=PsycopgConnector(conninfo=dsn, min_size=1, max_size=4))
    for name, work in tasks.items():
        app.task(name=name)(work)
    with _told():
        asyncio.run(_serve(app, stopping, concurrency))


async def _serve(app: App, stopping: threading.Event, concurrency: int) -> None:
    async with app.open_async():
        for job in await app.job_manager.get_stalled_jobs():
            _log.info("job taken back", task=job.task_name)
            await app.job_manager.retry_job(job)
        working = asyncio.create_task(
            app.run_worker_async(
                concurrency=concurrency,
                delete_jobs=DeleteJobCondition.ALWAYS,
                fetch_job_polling_interval=1.0,
                shutdown_graceful_timeout=GRACE_SECONDS,
                install_signal_handlers=False,
            )
        )
        while not stopping.is_set() and not working.done():
            await asyncio.sleep(0.1)
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working
