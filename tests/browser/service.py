"""A service with data made through `work`, as the browser tests speak to it."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from snapshed.db.access import Project
from snapshed.engine import Engine
from snapshed.resources import Resources
from snapshed.work import access, compare, condemn, deletion, receipts, remove, snapshots, traces, uploads

BASE_SHA = "a1b2c3d4e5" * 4
HEAD_SHA = "0f9e8d7c6b" * 4


def png(colour: tuple[int, int, int], width: int = 8, height: int = 8) -> bytes:
    """A PNG of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    lines = (b"\0" + bytes(colour) * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


@dataclass
class Service:
    """A running service and the verbs that tests speak to it with."""

    resources: Resources
    address: str
    project: Project
    token: str
    once: str
    engine: Engine | None = None

    def upload(self, images: dict[str, bytes], about: dict[str, dict[str, Any]] | None = None, **fields: Any) -> int:
        """A snapshot of these images; its number."""
        opened = uploads.begin(self.resources, self.project.org_id, self.project.id, "token:ci")
        owner = uploads.keep_open(self.resources, access.grant(self.resources, opened.token))
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in images.items()}
        here = uploads.ask(self.resources, owner, list(digests.values()))
        missing = [uploads.Upload(digests[name], data) for name, data in images.items() if digests[name] not in here]
        uploads.keep(self.resources, owner, missing)
        named = {
            name: {"content_hash": digests[name], **_size(data), **((about or {}).get(name, {}))}
            for name, data in images.items()
        }
        body = json.dumps({"app_id": "web", "images": named, **fields}).encode()
        return snapshots.create(self.resources, self.project, "token:ci", body).number

    def compare(self) -> None:
        """Do every comparison that waits, with the engine that several tests share, if there is one."""
        with nullcontext(self.engine) if self.engine else new_engine() as engine:
            for comparison_id in compare.unclaimed(self.resources, 100):
                compare.compare(self.resources, engine, comparison_id, lambda: False)

    def tidy(self) -> None:
        """What a worker does about deletions, until nothing is left to do."""
        for _ in range(3):
            traces.write_traces(self.resources)
            deletion.release_waiting(self.resources)
            condemn.condemn(self.resources)
            remove.remove(self.resources)
            traces.remove_traces(self.resources)
            receipts.close_finished(self.resources)

    def samples(self) -> tuple[int, int]:
        """The shop's screenshots before and after a change, compared; their numbers."""
        common = {"provider": "github", "head_repo_name": "acme/shop"}
        images, about = sample("base")
        base = self.upload(images, about, head_sha=BASE_SHA, head_ref="main", app_id="shop", **common)
        images, about = sample("head")
        head = self.upload(
            images,
            about,
            head_sha=HEAD_SHA,
            base_sha=BASE_SHA,
            head_ref="feature/free-delivery",
            base_ref="main",
            pr_number=128,
            app_id="shop",
            **common,
        )
        self.compare()
        return base, head


def new_engine() -> Engine:
    return Engine(workers=2, seconds_per_pair=30, memory_bytes=2**30, max_pixels=40_000_000)


def sample(side: str) -> tuple[dict[str, bytes], dict[str, dict[str, Any]]]:
    """The images of one side of the samples that ship with the project, and what their sidecars say."""
    root = Path(str(files("snapshed") / "samples" / side))
    images = {str(file.relative_to(root)): file.read_bytes() for file in sorted(root.rglob("*.png"))}
    told = {
        str(file.relative_to(root).with_suffix(".png")): json.loads(file.read_text()) for file in root.rglob("*.json")
    }
    return images, told


def _size(data: bytes) -> dict[str, int]:
    is_png = data.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", data[16:24]) if is_png else (0, 0)
    return {"width": width, "height": height}
