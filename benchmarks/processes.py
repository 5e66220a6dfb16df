"""Real processes for measurements: the service, an S3 server, and how much processor time each took."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
ACCESS, SECRET, BUCKET = "access-of-benchmarks", "secret-of-benchmarks", "snapshots"


@contextmanager
def started(command: Sequence[str], ready: str, log: Path, extra: Mapping[str, str] | None = None) -> Generator[str]:
    """Start a server and yield the rest of the line that begins with `ready`; stop it in good order."""
    with running(command, ready, log, extra) as (_, said):
        yield said


@contextmanager
def running(
    command: Sequence[str], ready: str | None, log: Path, extra: Mapping[str, str] | None = None
) -> Generator[tuple[subprocess.Popen[str], str]]:
    """A process in a session of its own, its errors in a file. With `ready`, it is waited for until it prints a line
    that begins so; the rest of that line is yielded too. Stopped in good order."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("SNAPSHED_", "SENTRY_"))}
    with log.open("a") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environ | dict(extra or {}),
        )
        try:
            assert process.stdout is not None
            said = ""
            if ready is not None:
                line = next((line for line in process.stdout if line.startswith(ready)), None)
                if line is None:
                    raise SystemExit(f"A server did not start:\n{log.read_text()[-4000:]}")
                said = line.removeprefix(ready).strip()
            yield process, said
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(15)
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


def service(verb: str, data: Path, *more: str) -> list[str]:
    """The command line of one of the service's own processes."""
    return [sys.executable, "-m", "snapshed", verb, "--data", str(data), *more]


READY = "Snapshed is ready at "


def cpu_seconds(mark: str) -> float:
    """Processor time of every process whose command line contains `mark`, and of all they started. Zero where there is
    no /proc."""
    return _seconds(lambda number, command: mark in command and number != os.getpid())


def own_cpu_seconds() -> float:
    """Processor time of this process and of all it started. Zero where there is no /proc."""
    return _seconds(lambda number, _: number == os.getpid())


def peak_bytes(mark: str) -> dict[str, int]:
    """The most memory that each process whose command line contains `mark` has held at once, by its command and pid."""
    found: dict[str, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (folder / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            lines = (folder / "status").read_text().splitlines()
            for line in lines:
                if mark in command and line.startswith("VmHWM:"):
                    found[f"{command.partition(' --data')[0].rpartition(' ')[2]} {folder.name}"] = (
                        int(line.split()[1]) * 1024
                    )
    return found


def _seconds(is_root: Callable[[int, str], bool]) -> float:
    """Processor time of the processes chosen by number and command line, of their descendants, and of those of their
    children that have ended."""
    parents: dict[int, int] = {}
    used: dict[int, int] = {}
    family: set[int] = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue  # ended while we looked
        number = int(folder.name)
        parents[number] = int(fields[1])
        used[number] = sum(map(int, fields[11:15]))
        if is_root(number, command):
            family.add(number)
    grown = True
    while grown:
        children = {number for number, parent in parents.items() if parent in family} - family
        family |= children
        grown = bool(children)
    return sum(used[number] for number in family) / TICKS


# --- A store that is a server ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class S3:
    """A running S3 server with one bucket; `mark` is what the command lines of its processes contain."""

    endpoint: str
    mark: str

    def settings(self, prefix: str) -> dict[str, str]:
        """How the service is told to keep its objects there."""
        return {
            "SNAPSHED_STORE_URL": f"s3://{BUCKET}/{prefix}",
            "SNAPSHED_STORE_ENDPOINT": self.endpoint,
            "SNAPSHED_STORE_ACCESS_KEY_ID": ACCESS,
            "SNAPSHED_STORE_SECRET_ACCESS_KEY": SECRET,
            "SNAPSHED_STORE_REGION": "us-east-1",
        }


@contextmanager
def seaweedfs() -> Generator[S3]:
    """SeaweedFS on loopback, in one process, in a folder of its own; gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="snapshed-s3-"))
    identity = {
        "name": "benchmarks",
        "credentials": [{"accessKey": ACCESS, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    try:
        # Somebody else may take a port between our look and its use.
        process, endpoint = next(filter(None, (_weed(folder) for _ in range(5))), (None, ""))
        if process is None:
            raise SystemExit(f"The S3 server does not start:\n{(folder / 'log').read_text(errors='replace')[-2000:]}")
        try:
            _make_bucket(endpoint)
            yield S3(endpoint, str(folder))
        finally:
            # It keeps nothing anybody wants, and its orderly stop takes long.
            process.send_signal(signal.SIGKILL)
            process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _weed(folder: Path) -> tuple[subprocess.Popen[bytes], str] | None:
    """Start it on free ports; None if it ends at once."""
    master, volume, filer, port = (_free_port() for _ in range(4))
    weed = str(Path(sys.executable).with_name("weed"))
    command = [
        weed, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-master.port={master}",
        f"-volume.port={volume}", f"-filer.port={filer}", "-s3", f"-s3.port={port}", f"-s3.config={folder / 's3.json'}",
        "-volume.max=40", "-master.volumeSizeLimitMB=64", "-s3.port.iceberg=0",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{port}"
    return (process, endpoint) if _answers(process, endpoint) else None


def _free_port() -> int:
    """A port whose gRPC neighbour, 10,000 above, is free too."""
    for _ in range(100):
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            if port > 50_000:
                continue
            with suppress(OSError):
                second.bind(("127.0.0.1", port + 10_000))
                return port
    raise SystemExit("There is no free port for the S3 server.")


def _answers(process: subprocess.Popen[bytes], endpoint: str) -> bool:
    for _ in range(600):
        if process.poll() is not None:
            return False
        try:
            urllib.request.urlopen(endpoint, timeout=1).close()
        except urllib.error.HTTPError:
            return True
        except OSError:
            time.sleep(0.05)
            continue
        return True
    process.kill()
    process.wait()
    return False


def _make_bucket(endpoint: str) -> None:
    """SeaweedFS makes a bucket with the first object put into it; this waits until that works."""
    import obstore  # noqa: PLC0415  the null server of the upload benchmark does without
    from obstore.exceptions import BaseError  # noqa: PLC0415

    store = bucket(endpoint, "")
    for _ in range(300):
        try:
            obstore.put(store, "first", b"1")
            obstore.delete(store, ["first"])
        except (BaseError, OSError):
            time.sleep(0.1)
            continue
        return
    raise SystemExit("The S3 server takes no objects.")


def bucket(endpoint: str, prefix: str):  # noqa: ANN201  a library's own type
    """A handle of our own on a part of the bucket."""
    from obstore.store import S3Store  # noqa: PLC0415

    return S3Store(
        BUCKET,
        prefix=prefix or None,
        endpoint=endpoint,
        access_key_id=ACCESS,
        secret_access_key=SECRET,
        region="us-east-1",
        client_options={"allow_http": True, "timeout": "120s"},
    )
