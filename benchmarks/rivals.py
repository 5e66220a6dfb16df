"""What a comparison is measured against: odiff, the pipeline this project started from, reg-cli, sentry-cli.

odiff and reg-cli come from npm, once, into a folder that git ignores.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

TOOLS = Path(__file__).parent / ".tools"
PACKAGES = ("odiff-bin@4.5.0", "reg-cli@0.18.16")
THRESHOLD = 0.01

Pair = tuple[Path, Path]
"""Base and head."""


def installed() -> Path:
    """The folder of the tools' commands, installed by npm if they are not there."""
    commands = TOOLS / "node_modules" / ".bin"
    if not (commands / "odiff").exists():
        npm = shutil.which("npm")
        if npm is None:
            raise SystemExit("This benchmark compares with odiff and reg-cli, which npm installs; install Node.js 18+.")
        subprocess.run(
            [npm, "install", "--no-audit", "--no-fund", "--silent", "--prefix", TOOLS, *PACKAGES], check=True
        )
    return commands


@dataclass
class Odiff:
    """One odiff server, asked one pair after another."""

    process: subprocess.Popen[str]
    asked: int = 0

    def compare(self, base: Path, head: Path, mask: Path) -> dict[str, Any]:
        """What odiff says of a pair: `match`, and `diffCount` if it does not. The mask is written if it does not."""
        self.asked += 1
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        options = {"threshold": THRESHOLD, "antialiasing": True, "outputDiffMask": True}
        request = {
            "requestId": self.asked, "base": str(base), "compare": str(head), "output": str(mask), "options": options
        }  # fmt: skip
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise SystemExit(f"odiff cannot compare {head}: {answer['error']}")
        return answer


@contextmanager
def odiff() -> Generator[Odiff]:
    """A running odiff server. Its processor time is this process's children's once it has ended."""
    (binary,) = (TOOLS / "node_modules" / "@odiff").glob("*/odiff*")
    with subprocess.Popen([binary, "--server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["ready"]
        try:
            yield Odiff(process)
        finally:
            process.kill()


def by_odiff(odiff: Odiff, pairs: Sequence[Pair], folder: Path) -> None:
    """The pairs as they are."""
    for base, head in pairs:
        odiff.compare(base, head, folder / "mask.png")


def as_it_was(odiff: Odiff, pairs: Sequence[Pair], folder: Path) -> None:
    """The pipeline this project started from: both images decoded, put on a common canvas and encoded again, odiff with
    a mask, the mask read, its pixels counted, and a grey mask encoded."""
    for base, head in pairs:
        images = [Image.open(path) for path in (base, head)]
        size = (max(image.width for image in images), max(image.height for image in images))
        for image, name in zip(images, ("base.png", "head.png"), strict=True):
            canvas = image
            if image.size != size:
                canvas = Image.new("RGBA", size)
                canvas.paste(image, (0, 0))
            canvas.save(folder / name)
        mask = folder / "mask.png"
        if not odiff.compare(folder / "base.png", folder / "head.png", mask)["match"]:
            drawn = np.asarray(Image.open(mask).convert("RGBA"))[..., 3] > 0
            np.count_nonzero(drawn)
            Image.fromarray(np.where(drawn, np.uint8(255), np.uint8(0))).save(folder / "grey.png")


def by_snapshed(base: Path, head: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "snapshed", "diff", str(base), str(head), "--out", str(out), "--json"]


def by_sentry_cli(base: Path, head: Path, out: Path) -> list[str]:
    return [
        str(Path(sys.executable).with_name("sentry-cli")),
        "snapshots",
        "diff",
        "--output",
        str(out),
        str(base),
        str(head),
    ]


def by_reg_cli(base: Path, head: Path, out: Path) -> list[str]:
    """Two comparisons at a time, as many as ours, and its own report of them."""
    at_once = str(os.cpu_count() or 1)
    return [
        str(installed() / "reg-cli"), str(head), str(base), str(out / "masks"), "--json", str(out / "reg.json"),
        "--report", str(out / "report.html"), "--enableAntialias", "--matchingThreshold", str(THRESHOLD),
        "--concurrency", at_once, "--ignoreChange",
    ]  # fmt: skip
