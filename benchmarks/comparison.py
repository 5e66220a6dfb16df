"""How long a comparison takes, pair by pair and folder by folder, beside what its users would pick instead.

.venv/bin/python benchmarks/comparison.py             # everything, kept in results/comparison.json
.venv/bin/python benchmarks/comparison.py --quick     # small, nothing kept
.venv/bin/python benchmarks/comparison.py --table     # the tables from what was kept
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import figures
import rivals
import screens
from processes import own_cpu_seconds
from rivals import Odiff, Pair
from screens import pushed_down, recoloured, redrawn, reworded

from snapshed.engine import DiffTask, Engine
from snapshed.engine.decode import Source


@dataclass(frozen=True)
class Took:
    """Seconds by the wall and of processor time, children included."""

    wall: float
    cpu: float


def took(work: Callable[[], object]) -> Took:
    """Do it and say what it took."""
    began, before = time.perf_counter(), own_cpu_seconds()
    work()
    return Took(time.perf_counter() - began, own_cpu_seconds() - before)


# --- Pair by pair ---------------------------------------------------------------------------------------------------------


def sample_pairs() -> list[Pair]:
    """Every name that both sample folders have with different bytes."""
    base, head = screens.SAMPLES, screens.SAMPLES.with_name("head")
    both = [(path, head / path.relative_to(base)) for path in sorted(base.rglob("*.png"))]
    return [pair for pair in both if pair[1].is_file() and pair[0].read_bytes() != pair[1].read_bytes()]


def made_pairs(folder: Path, count: int) -> dict[str, list[Pair]]:
    """Pages and what became of them, by what happened: small things, a move, everything."""
    kinds = {"reworded or recoloured": [reworded, recoloured], "pushed down": [pushed_down], "redrawn": [redrawn]}
    return {kind: screens.pairs(folder / kind, count, changes) for kind, changes in kinds.items()}


def bare(pairs: Sequence[Pair]) -> None:
    """The limit: nothing but decoding both images, by the same decoder."""
    for pair in pairs:
        for path in pair:
            Source(path).pixels()


def one_child() -> Engine:
    return Engine(workers=1, seconds_per_pair=60, memory_bytes=2**31, max_pixels=40_000_000)


def by_engine(engine: Engine, pairs: Sequence[Pair], folder: Path) -> dict[str, int]:
    """The pairs as a worker compares them: regions, fingerprints and shifts included."""
    tasks = (DiffTask(str(number), head, base, folder / f"{number}.png") for number, (base, head) in enumerate(pairs))
    return {result.name: result.changed_pixels for result in engine.diff(tasks)}


def agreement(engine: Engine, odiff: Odiff, pairs: Sequence[Pair], folder: Path) -> list[dict[str, Any]]:
    """For each pair the pixels that differ by our count and by odiff's."""
    ours = by_engine(engine, pairs, folder)
    theirs = [odiff.compare(base, head, folder / "mask.png") for base, head in pairs]
    return [
        {
            "pair": f"{head.parent.name}/{head.name}",
            "ours": ours[str(number)],
            "odiff": 0 if said["match"] else said.get("diffCount"),
        }
        for number, ((_, head), said) in enumerate(zip(pairs, theirs, strict=True))
    ]


def pair_by_pair(kind: str, pairs: Sequence[Pair], rounds: int, place: Path) -> dict[str, Any]:
    """Our engine with one child, and one odiff server; both have been started and have compared every pair before."""
    with one_child() as engine, rivals.odiff() as odiff:
        agreed = agreement(engine, odiff, pairs, place)
        ways: dict[str, Callable[[], object]] = {
            "snapshed": lambda: by_engine(engine, pairs, place),
            "odiff": lambda: rivals.by_odiff(odiff, pairs, place),
            "as it was": lambda: rivals.as_it_was(odiff, pairs, place),
            "bare decode": lambda: bare(pairs),
        }
        return {"kind": kind, "count": len(pairs), "agreement": agreed, "ways": _in_turns(ways, rounds)}


# --- Folder by folder -----------------------------------------------------------------------------------------------------


def folder_by_folder(images: int, changed: int, rounds: int, place: Path) -> dict[str, list[dict[str, float]]]:
    base, head = screens.folders(place / f"{changed}-of-{images}", images, changed)
    number = 0

    def run(command: Callable[[Path, Path, Path], list[str]]) -> None:
        nonlocal number
        number += 1
        out = place / f"out-{number}"
        path = f"{rivals.installed()}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            command(base, head, out), capture_output=True, text=True, env=os.environ | {"PATH": path}, check=False
        )
        if done.returncode not in (0, 1):
            raise SystemExit(f"{command.__name__} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")

    ways: dict[str, Callable[[], object]] = {
        "snapshed diff": lambda: run(rivals.by_snapshed),
        "sentry-cli snapshots diff": lambda: run(rivals.by_sentry_cli),
        "reg-cli": lambda: run(rivals.by_reg_cli),
    }
    return _in_turns(ways, rounds)


def _in_turns(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[dict[str, float]]]:
    """Each way once to warm up, then all in turn, round by round, in an order that changes."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for work in ways.values():
        work()
    for number in range(rounds):
        for name in random.Random(number).sample(sorted(ways), len(ways)):
            found[name].append(asdict(took(ways[name])))
    return found


# --- Keeping and showing --------------------------------------------------------------------------------------------------


def measure(*, quick: bool) -> dict[str, Any]:
    rivals.installed()
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        kinds = {"samples": sample_pairs(), **made_pairs(place / "pairs", 6 if quick else 40)}
        rounds = 1 if quick else 5
        images = 40 if quick else 500
        return figures.document(
            rivals=list(rivals.PACKAGES),
            algorithm=Engine.ALGORITHM,
            pairs=[pair_by_pair(kind, pairs, rounds, place) for kind, pairs in kinds.items()],
            folders=[
                {"images": images, "changed": changed, "ways": folder_by_folder(images, changed, min(rounds, 3), place)}
                for changed in ((0, 4) if quick else (0, 5, 50, 500))
            ],
        )


def show(kept: dict[str, Any]) -> str:
    agreed = [item for kind in kept["pairs"] for item in kind["agreement"]]
    apart = [abs(item["ours"] - item["odiff"]) / max(item["odiff"], 1) for item in agreed]
    same = sum((item["ours"] > 0) == (item["odiff"] > 0) for item in agreed)
    lines = [
        f"{len(agreed)} pairs: the same verdict in {same}; counts apart by {100 * sorted(apart)[len(apart) // 2]:.2f} % "
        f"(median), {100 * max(apart):.2f} % (most).\n",
    ]
    lines += [_ratios(f"{item['count']} pairs, {item['kind']}", item["ways"], "snapshed") for item in kept["pairs"]]
    lines += [
        _ratios(f"{item['images']} images, {item['changed']} changed", item["ways"], "snapshed diff")
        for item in kept["folders"]
    ]
    return "\n\n".join(lines)


def _ratios(title: str, ways: dict[str, list[dict[str, float]]], ours: str) -> str:
    """Medians, and how many times ours each of the others takes, round by round."""
    rows: list[list[str | float]] = []
    for name, runs in ways.items():
        cpu, wall = ([run[what] for run in runs] for what in ("cpu", "wall"))
        ratios = [
            figures.spread([run[what] / own[what] for run, own in zip(runs, ways[ours], strict=True)])[1]
            for what in ("cpu", "wall")
        ]
        rows.append([name, figures.spread(cpu)[1], figures.spread(wall)[1], *ratios])
    return figures.table([title, "cpu s", "wall s", "cpu / ours", "wall / ours"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing is kept")
    parser.add_argument("--table", action="store_true", help="only show what was kept")
    chosen = parser.parse_args()
    found = figures.kept("comparison") if chosen.table else measure(quick=chosen.quick)
    if not (chosen.table or chosen.quick):
        figures.keep("comparison", found)
    print(show(found))


if __name__ == "__main__":
    main()
