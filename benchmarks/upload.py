"""How long `sentry-cli snapshots upload` takes against Snapshed, beside a server that keeps nothing.

The null server speaks the same protocol, says of every image that it is missing, swallows it and forgets it: what is
left is the client's own time and the way over the loopback. The two take turns with the same images, fresh each round.

    .venv/bin/python benchmarks/upload.py [--images 3000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from processes import READY, cpu_seconds, service, started

from snapshed import __version__
from snapshed.domain import grants

RESULTS = Path(__file__).parent / "results" / "upload.json"
CLIENT = Path(sys.executable).with_name("sentry-cli")


@dataclass(frozen=True)
class Took:
    """One run of the client: seconds by the wall, and of processor time on either side."""

    wall: float
    client_cpu: float
    server_cpu: float


@dataclass(frozen=True)
class Server:
    """Something to upload to."""

    name: str
    token: str
    project: str
    processes: str
    """What the command lines of its processes contain; their descendants count too."""


# --- Images ------------------------------------------------------------------------------------------------------------


def make_images(folder: Path, count: int, round_number: int) -> int:
    """Small valid PNGs that nobody has seen before; returns their bytes in all."""
    total = 0
    for number in range(count):
        data = png(f"{secrets.token_hex(8)} {round_number} {number}")
        file = folder / f"page-{number // 100:03}" / f"shot-{number:05}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data)
        total += len(data)
    return total


def png(seed: str, side: int = 32) -> bytes:
    noise = hashlib.shake_128(seed.encode()).digest(side * side)
    rows = b"".join(b"\0" + noise[start : start + side] for start in range(0, side * side, side))
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


# --- The two servers ---------------------------------------------------------------------------------------------------


@contextmanager
def snapshed(folder: Path) -> Generator[Server]:
    """`snapshed serve` as anybody starts it: embedded database, objects on disk, a worker beside."""
    data = folder / "snapshed-data"
    with started(service("serve", data, "--port", "0"), READY, folder / "snapshed.log"):
        yield Server("snapshed", (data / "admin-token").read_text().strip(), "main", str(data))


@contextmanager
def null(folder: Path) -> Generator[Server]:
    """The server below, in a process of its own."""
    mark = f"--null={secrets.token_hex(8)}"
    with started([sys.executable, __file__, mark], "null server at ", folder / "null.log") as address:
        token = grants.org_token(address, "main", datetime.now(UTC), grants.new_secret(secrets.token_bytes(32)))
        yield Server("null", token, "main", mark)


def serve_null() -> None:
    """Answer what the client asks and keep nothing of what it sends."""
    import socket  # noqa: PLC0415  only the child needs them

    import uvicorn  # noqa: PLC0415

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    operation = re.compile(rb"x-sn-batch-operation-kind: (\w+)\r\nx-sn-batch-operation-key: (\S+)\r\n")
    options = {
        "url": address,
        "usecase": "preprod",
        "scopes": [["org", "1"], ["project", "1"]],
        "authToken": None,
        "expirationPolicy": "manual",
    }

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        pieces: list[bytes] = []
        more = True
        while more:
            message = await receive()
            pieces.append(message.get("body", b""))
            more = message.get("more_body", False)
        media_type, body = b"application/json", b""
        if scope["path"].startswith("/v1/objects:batch/"):
            media_type = b'multipart/form-data; boundary="edge"'
            asked = operation.findall(b"".join(pieces))
            body = b"".join(_part(index, kind, key) for index, (kind, key) in enumerate(asked)) + b"--edge--\r\n"
        elif scope["path"].startswith("/v1/"):
            body = json.dumps({"key": scope["path"].split("/", 5)[-1]}).encode()
        elif scope["method"] == "GET":
            body = json.dumps({"objectstore": options}).encode()
        else:
            body = json.dumps({"artifactId": "1", "imageCount": 0, "snapshotUrl": f"{address}/"}).encode()
        headers = [(b"content-type", media_type), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    sys.stdout.write(f"null server at {address}\n")
    sys.stdout.flush()
    listener.listen(64)
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_keep_alive=90)
    uvicorn.Server(config).run(sockets=[listener])


def _part(index: int, kind: bytes, key: bytes) -> bytes:
    status = b"404 Not Found" if kind == b"head" else b"201 Created"
    return (
        b"--edge\r\nx-sn-batch-operation-index: %d\r\nx-sn-batch-operation-status: %s\r\n"
        b"x-sn-batch-operation-key: %s\r\n\r\n\r\n" % (index, status, key)
    )


# --- Measuring -----------------------------------------------------------------------------------------------------------


def upload(server: Server, folder: Path, home: Path) -> Took:
    """One run of the unmodified client. It must succeed."""
    command = [CLIENT, "snapshots", "upload", folder, "--app-id", "web", "--no-git-metadata"]
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "SENTRY_AUTH_TOKEN": server.token,
        "SENTRY_PROJECT": server.project,
    }
    before, began = cpu_seconds(server.processes), time.monotonic()
    with (home / "client.log").open("w") as log:
        process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, env=environ, cwd=home)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - began
    if process.returncode != 0:
        raise SystemExit(f"The upload to {server.name} failed:\n{(home / 'client.log').read_text()}")
    return Took(wall, usage.ru_utime + usage.ru_stime, cpu_seconds(server.processes) - before)


def measure(images: int, rounds: int, root: Path) -> list[dict[str, Any]]:
    measured: list[dict[str, Any]] = []
    with snapshed(root) as ours, null(root) as nothing:
        for number in range(rounds + 1):
            folder = root / "images"
            folder.mkdir()
            # The first round is small and not counted: connections, pools and caches are warm afterwards.
            total = make_images(folder, images if number else 20, number)
            took = {server.name: upload(server, folder, root) for server in (ours, nothing)}
            shutil.rmtree(folder)
            if number == 0:
                continue
            ratio = took["snapshed"].wall / took["null"].wall
            measured.append(
                {
                    "round": number,
                    "bytes": total,
                    "ratio": round(ratio, 3),
                    **{
                        name: {field: round(value, 3) for field, value in asdict(one).items()}
                        for name, one in took.items()
                    },
                }
            )
            print(f"round {number}: snapshed {took['snapshed'].wall:.2f} s, null {took['null'].wall:.2f} s", flush=True)
    return measured


def table(measured: list[dict[str, Any]]) -> str:
    lines = [f"{'':34}{'min':>9}{'median':>9}{'max':>9}"]
    for name in ("snapshed", "null"):
        for field, words in (("wall", "wall s"), ("client_cpu", "client cpu s"), ("server_cpu", "server cpu s")):
            values = [entry[name][field] for entry in measured]
            lines.append(_line(f"{name}: {words}", values))
    lines.append(_line("snapshed / null, wall, by pairs", [entry["ratio"] for entry in measured]))
    return "\n".join(lines)


def _line(words: str, values: list[float]) -> str:
    return f"{words:34}{min(values):9.2f}{statistics.median(values):9.2f}{max(values):9.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Time sentry-cli uploads against Snapshed and against nothing.")
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--null", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.null:
        serve_null()
        return
    with tempfile.TemporaryDirectory(prefix="snapshed-benchmark-") as root:
        measured = measure(chosen.images, chosen.rounds, Path(root))
    print(f"\n{chosen.images} images a round, {measured[0]['bytes'] / 2**20:.1f} MiB\n{table(measured)}")
    client = subprocess.run([CLIENT, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    document = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "snapshed": __version__,
        "client": client,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
        "images": chosen.images,
        "rounds": measured,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
