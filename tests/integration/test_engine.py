"""The engine with real child processes: what it counts, what it refuses, and what becomes of pairs that go wrong."""

from __future__ import annotations

import io
import os
import signal
import struct
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from snapshed.engine import DiffResult, DiffTask, Engine, exchange, regions

Pixels = NDArray[np.uint8]
MOST_PIXELS = 40_000_000


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(workers=2, seconds_per_pair=60, memory_bytes=1 << 30, max_pixels=MOST_PIXELS) as engine:
        yield engine


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def encoded(image: Image.Image | Pixels, kind: str = "PNG", **options: Any) -> bytes:
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def task(folder: Path, head: bytes, base: bytes, name: str = "a") -> DiffTask:
    """Files without an ending, as they come from the store."""
    paths = folder / f"{name}-head", folder / f"{name}-base"
    for path, data in zip(paths, (head, base), strict=True):
        path.write_bytes(data)
    return DiffTask(name, *paths, folder / f"{name}-mask")


def one(engine: Engine, folder: Path, head: bytes, base: bytes) -> DiffResult:
    (result,) = engine.diff([task(folder, head, base)])
    return result


def mask_of(folder: Path, name: str = "a") -> Pixels:
    with Image.open(folder / f"{name}-mask") as image:
        assert (image.format, image.mode) == ("PNG", "L")
        return np.asarray(image)


def page(width: int = 120, height: int = 90) -> Pixels:
    """Something like a page: flat areas, a gradient, and letters with soft edges."""
    image = Image.new("RGBA", (width, height), (250, 250, 252, 255))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, width, 14), fill=(30, 60, 120, 255))
    draw.text((5, 30), "Delete means delete", fill=(20, 20, 20, 255), font_size=11)
    for x in range(width):
        draw.line((x, height - 12, x, height), fill=(x * 255 // width, 80, 160, 255))
    return np.array(image)


def noise(width: int, height: int, seed: int) -> bytes:
    return encoded(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8), compress_level=0)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"", interlaced: int = 0
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


# --- What is counted ---------------------------------------------------------------------------


def test_a_changed_rectangle_is_counted_and_drawn(engine: Engine, folder: Path) -> None:
    base = page()
    head = base.copy()
    head[52:62, 60:80] = (255, 0, 255, 255)
    result = one(engine, folder, encoded(head), encoded(base))
    assert result == DiffResult(
        "a",
        200,
        120 * 90,
        (120, 90),
        (120, 90),
        mask_written=True,
        regions=((60, 52, 20, 10),),
        fingerprint=result.fingerprint,
    )
    expected = np.zeros((90, 120), np.uint8)
    expected[52:62, 60:80] = 255
    assert np.array_equal(mask_of(folder), expected)


def test_distant_changes_keep_their_places(engine: Engine, folder: Path) -> None:
    base = np.full((200, 300, 4), 255, np.uint8)
    head = base.copy()
    places = [(0, 0), (0, 299), (17, 150), (100, 3), (199, 0), (199, 299)]
    for place in places:
        head[place] = (0, 0, 0, 255)
    assert one(engine, folder, encoded(head), encoded(base)).changed_pixels == len(places)
    assert sorted(map(tuple, np.argwhere(mask_of(folder)).tolist())) == places


def test_other_bytes_for_the_same_pixels_are_no_change_and_leave_no_mask(engine: Engine, folder: Path) -> None:
    result = one(engine, folder, encoded(page(), compress_level=9), encoded(page(), compress_level=0))
    assert result == DiffResult("a", 0, 120 * 90, (120, 90), (120, 90), explanation="identical")
    assert not (folder / "a-mask").exists()


def test_a_difference_in_antialiasing_alone_is_no_change(engine: Engine, folder: Path) -> None:
    def circle(scale: int) -> Pixels:
        image = Image.new("L", (80 * scale, 80 * scale), 255)
        ImageDraw.Draw(image).ellipse([10 * scale, 10 * scale, 70 * scale, 70 * scale], fill=0)
        soft = np.asarray(image.resize((80, 80), Image.Resampling.BOX))
        return np.dstack((soft, soft, soft, np.full_like(soft, 255)))

    head, base = circle(8), circle(6)
    assert (head != base).any()
    assert one(engine, folder, encoded(head), encoded(base)).changed_pixels == 0
    assert not (folder / "a-mask").exists()


def test_a_difference_below_what_the_eye_sees_is_no_change(engine: Engine, folder: Path) -> None:
    head = page()
    head[..., 0] ^= 1
    assert one(engine, folder, encoded(head), encoded(page())).changed_pixels == 0


def test_unequal_sizes_share_a_canvas_with_a_transparent_rest(engine: Engine, folder: Path) -> None:
    black = np.zeros((40, 60, 4), np.uint8)
    black[..., 3] = 255
    result = one(engine, folder, encoded(black[:, :50]), encoded(black[:30]))
    assert (result.head_size, result.base_size, result.total_pixels) == ((50, 40), (60, 30), 60 * 40)
    # On the canvas each lacks what the other has; what both lack, bottom right, is equal.
    assert result.changed_pixels == 50 * 10 + 10 * 30
    assert not mask_of(folder)[30:, 50:].any()


def test_a_longer_page_counts_the_new_rows(engine: Engine, folder: Path) -> None:
    base = np.full((100, 64, 3), 200, np.uint8)
    head = np.full((110, 64, 3), 200, np.uint8)
    assert one(engine, folder, encoded(head), encoded(base)).changed_pixels == 640


@pytest.mark.parametrize("size", [(1, 1), (10_000, 1), (1, 10_000), (2, 2), (3, 5)])
def test_extreme_shapes_are_compared(engine: Engine, folder: Path, size: tuple[int, int]) -> None:
    base = np.full((size[1], size[0], 3), 255, np.uint8)
    head = base.copy()
    head[-1, -1] = 0
    result = one(engine, folder, encoded(head), encoded(base))
    assert (result.changed_pixels, result.head_size, result.reason) == (1, size, None)


# --- Kinds of files ----------------------------------------------------------------------------


def grey() -> Pixels:
    return np.asarray(Image.fromarray(page()).convert("L"))


def rgb() -> Pixels:
    return page()[..., :3].copy()


def rows_of(values: NDArray[Any]) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in values.reshape(values.shape[0], -1))


def deep(values: Pixels) -> bytes:
    """The same picture in 16 bits a channel."""
    colour = 2 if values.ndim == 3 else 0
    return png(120, 90, 16, colour, rows_of((values.astype(np.uint16) * 257).astype(">u2")))


def interlaced() -> bytes:
    """Adam7, written out by hand: Pillow reads it and does not write it."""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    picture = rgb()
    return png(120, 90, 8, 2, b"".join(rows_of(picture[y::dy, x::dx]) for x, y, dx, dy in passes), interlaced=1)


def palette(**options: Any) -> bytes:
    return encoded(Image.fromarray(rgb()).quantize(256, dither=Image.Dither.NONE), **options)


def as_shown(data: bytes) -> bytes:
    """The file as plain RGBA, for what the rest of the world shows."""
    with Image.open(io.BytesIO(data)) as image:
        return encoded(image.convert("RGBA"))


def kinds() -> dict[str, tuple[bytes, bytes]]:
    """Each kind of file, and the same picture as plain RGBA."""
    plain, soft, inverted = Image.fromarray(rgb()), Image.fromarray(grey()), Image.fromarray(255 - rgb())
    shown_elsewhere = {
        "grey": encoded(soft),
        "grey-alpha": encoded(soft.convert("LA")),
        "black-white": encoded(soft.convert("1")),
        "palette": palette(),
        "palette-alpha": palette(transparency=bytes(range(0, 256, 2))),
        "rgb-key": encoded(plain, transparency=(250, 250, 252)),
        "jpeg": encoded(plain, "JPEG", quality=90),
        "jpeg-grey": encoded(soft, "JPEG"),
        "jpeg-cmyk": encoded(plain.convert("CMYK"), "JPEG"),
    }
    return {name: (data, as_shown(data)) for name, data in shown_elsewhere.items()} | {
        "rgb": (encoded(plain), encoded(page())),
        "rgb16": (deep(rgb()), encoded(page())),
        "grey16": (deep(grey()), as_shown(encoded(soft))),
        "interlaced": (interlaced(), encoded(page())),
        "animated": (encoded(plain, save_all=True, append_images=[inverted]), encoded(page())),
    }


@pytest.mark.parametrize(("file", "plain"), kinds().values(), ids=kinds().keys())
def test_every_kind_of_file_is_compared_as_it_is_shown(engine: Engine, folder: Path, file: bytes, plain: bytes) -> None:
    result = one(engine, folder, file, plain)
    assert (result.reason, result.changed_pixels, result.head_size) == (None, 0, (120, 90))
    assert one(engine, folder, file, with_a_dot(plain)).changed_pixels == 100


def with_a_dot(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        image.paste((255, 0, 255, 255), (100, 50, 110, 60))
        return encoded(image)


def damaged(data: bytes) -> bytes:
    middle = data.index(b"IDAT") + 40
    return data[:middle] + b"\xff" * 60 + data[middle + 60 :]


def bomb() -> bytes:
    """Two hundred bytes that promise 3.6 thousand million pixels."""
    return png(60_000, 60_000, 8, 2, b"")


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"", "the head image is empty"),
        (b"GIF89a" + bytes(100), "the head image is not a PNG or JPEG"),
        (encoded(page(), "WEBP"), "the head image is not a PNG or JPEG"),
        (encoded(Image.fromarray(page()).convert("P"), "GIF"), "the head image is not a PNG or JPEG"),
        (b"<svg/>", "the head image is not a PNG or JPEG"),
        (encoded(page())[:20], "the head image is damaged or ends early"),
        (encoded(page())[:900], "the head image ends early"),
        (encoded(rgb(), "JPEG")[:900], "the head image ends early"),
        (damaged(encoded(page())), "the head image is damaged"),
    ],
)
def test_what_is_no_image_is_refused_in_plain_words(engine: Engine, folder: Path, data: bytes, detail: str) -> None:
    result = one(engine, folder, data, encoded(page()))
    assert result == DiffResult("a", reason="image_processing_failed", detail=detail)
    assert not (folder / "a-mask").exists()
    (other,) = engine.diff([task(folder, encoded(page()), data)])
    assert other.detail == detail.replace("head", "base")


def test_a_missing_file_and_an_unwritable_mask_are_results_too(engine: Engine, folder: Path) -> None:
    given_task = task(folder, encoded(page()), encoded(255 - page()[..., :3]))
    lost = DiffTask("lost", folder / "nowhere", given_task.base, folder / "lost-mask")
    homeless = DiffTask("homeless", given_task.head, given_task.base, folder / "nowhere" / "mask")
    found = {result.name: result.detail for result in engine.diff([lost, homeless])}
    assert found == {
        "lost": "the head image could not be read",
        "homeless": "a file could not be read or written",
    }


def test_the_limit_is_on_the_canvas_and_read_from_the_headers(engine: Engine, folder: Path) -> None:
    started = time.monotonic()
    result = one(engine, folder, bomb(), encoded(page()))
    assert (result.reason, result.head_size) == ("exceeds_pixel_limit", (60_000, 60_000))
    wide, tall = png(40_001, 1, 8, 0, b""), png(1, 1_000, 8, 0, b"")
    assert one(engine, folder, wide, tall).reason == "exceeds_pixel_limit"
    assert time.monotonic() - started < 10


# --- What is told about a change ---------------------------------------------------------------


def test_regions_hold_every_changed_pixel_apart_from_each_other_and_few(engine: Engine, folder: Path) -> None:
    rng = np.random.default_rng(7)
    base = np.full((300, 400, 4), 255, np.uint8)
    for marks in (1, 3, 40, 400):
        head = base.copy()
        for top, left in zip(rng.integers(0, 296, marks), rng.integers(0, 396, marks), strict=True):
            head[top : top + 4, left : left + 4, :3] = 0
        result = one(engine, folder, encoded(head), encoded(base))
        covered = np.zeros((300, 400), np.uint8)
        for left, top, width, height in result.regions:
            covered[top : top + height, left : left + width] += 1
        assert covered.max() == 1, "two regions overlap"
        assert not (mask_of(folder) & ~covered.astype(bool) * 255).any(), "a changed pixel is in no region"
        assert len(result.regions) <= min(marks, regions.MOST)


def test_the_same_change_has_the_same_fingerprint_wherever_it_is_and_another_has_not(
    engine: Engine, folder: Path
) -> None:
    label = np.array(Image.fromarray(page()).crop((0, 24, 110, 48)))

    def told(ground: int, left: int, top: int, shape: tuple[int, int], colour: int = 0) -> str | None:
        base = np.full((*shape, 4), 255, np.uint8)
        base[-20:, :, :3] = ground  # what is not changed plays no part
        base[top : top + 24, left : left + 110] = label
        head = base.copy()
        head[top + 2 : top + 9, left + 5 : left + 90] = (colour, 0, 200, 255)
        return one(engine, folder, encoded(head), encoded(base)).fingerprint

    first = told(10, 0, 0, (100, 130))
    assert first is not None
    assert told(99, 13, 21, (140, 200)) == first
    assert told(10, 0, 0, (100, 130), colour=90) != first


def test_a_shift_is_told_and_still_counts_as_a_change(engine: Engine, folder: Path) -> None:
    base = page(height=120)
    head = np.vstack((base[:20], np.full((24, 120, 4), 200, np.uint8), base[20:]))
    result = one(engine, folder, encoded(head), encoded(base))
    assert (result.explanation, result.moved_by) == ("moved", 24)
    assert result.changed_pixels > 0
    back = one(engine, folder, encoded(base), encoded(head))
    assert (back.explanation, back.moved_by) == ("moved", -24)


def test_what_does_not_count_is_told_apart(engine: Engine, folder: Path) -> None:
    def circle(scale: int) -> Pixels:
        image = Image.new("L", (80 * scale, 80 * scale), 255)
        ImageDraw.Draw(image).ellipse([10 * scale, 10 * scale, 70 * scale, 70 * scale], fill=0)
        soft = np.asarray(image.resize((80, 80), Image.Resampling.BOX))
        return np.dstack((soft, soft, soft, np.full_like(soft, 255)))

    faint = page()
    faint[60:70, 20:40, 2] -= 1
    assert one(engine, folder, encoded(circle(8)), encoded(circle(6))).explanation == "antialiasing"
    assert one(engine, folder, encoded(faint), encoded(page())).explanation == "imperceptible"


# --- Narrowing ---------------------------------------------------------------------------------


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Pixels, Pixels]:
    """Two images that share most of their pixels: noise, edges and flats, some transparent, changed in a few places."""
    height, width = draw(st.integers(1, 48)), draw(st.integers(1, 48))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    levels = draw(st.sampled_from([2, 3, 16, 256]))
    base = (rng.integers(0, levels, (height, width, 4)) * (255 // (levels - 1))).astype(np.uint8)
    smooth = draw(st.booleans())
    if smooth:
        base = np.array(Image.fromarray(base).resize((width * 3, height * 3)).crop((0, 0, width, height)))
    base[..., 3] = 255
    head = base.copy()
    for _ in range(draw(st.integers(1, 4))):
        top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        area = np.s_[top : top + draw(st.integers(1, 6)), left : left + draw(st.integers(1, 6))]
        step = draw(st.sampled_from([1, 4, 9, 40, 200]))
        head[area][..., :3] += rng.integers(0, step + 1, head[area][..., :3].shape, dtype=np.uint8)
    if draw(st.booleans()):
        top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        for image in (head, base)[: draw(st.integers(1, 2))]:
            image[top : top + 8, left : left + 8, 3] = draw(st.sampled_from([0, 100, 254]))
    return head, base


@pytest.fixture(scope="module")
def in_process() -> Iterator[Any]:
    """The comparison in this very process, to call it thousands of times."""
    from snapshed.engine import pair

    with tempfile.TemporaryDirectory() as links:
        exchange.link(Path(links))
        mine = exchange.Exchange(Path(links))
        yield lambda head, base, narrow: pair.changed(head, base, mine, narrow=narrow)


@pytest.mark.scale
@settings(max_examples=1_500, deadline=None)
@given(scene=scenes())
def test_what_is_narrowed_is_judged_as_the_whole(in_process: Any, scene: tuple[Pixels, Pixels]) -> None:
    narrowed, whole = (in_process(*scene, narrow=narrow) for narrow in (True, False))
    if narrowed is None:
        assert whole is None
    else:
        assert np.array_equal(narrowed, whole)


# --- Children ----------------------------------------------------------------------------------


def children_of(parent: int) -> list[int]:
    """The engine's children of a process; the interpreter's own helper that tracks semaphores is not one."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                status, command = (entry / "stat").read_text(), (entry / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            ours = int(status.rpartition(")")[2].split()[1]) == parent
            if ours and b"spawn_main" in command and status.rpartition(")")[2].split()[0] != "Z":
                found.append(int(entry.name))
    return found


def busy(parent: int, known: set[int]) -> int:
    """A child that has begun to work: it holds the pictures in memory."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for child in children_of(parent):
            if child not in known and "head.qoi" in links_of(child) and resident(child) > 150_000_000:
                return child
        time.sleep(0.01)
    raise AssertionError("no child got to work")


def links_of(child: int) -> str:
    try:
        return " ".join(str(link.readlink()) for link in Path(f"/proc/{child}/fd").iterdir())
    except OSError:
        return ""


def resident(child: int) -> int:
    try:
        return int(Path(f"/proc/{child}/statm").read_text().split()[1]) * 4096
    except OSError:
        return 0


def is_deaf_to(pid: int, number: signal.Signals) -> bool:
    """Whether a process blocks or ignores a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    masks = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigBlk:", "SigIgn:"))]
    return any(mask & 1 << (number - 1) for mask in masks)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def eventually(claim: Any, seconds: float = 15) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if claim():
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def large(folder: Path) -> DiffTask:
    """Seconds of work: every pixel differs."""
    return task(folder, noise(4_000, 3_000, 1), noise(4_000, 3_000, 2), "large")


def small_tasks(folder: Path, count: int) -> list[DiffTask]:
    base = encoded(page())
    head = page()
    head[:10, :10] = (255, 0, 255, 255)
    return [task(folder, encoded(head), base, f"small{number}") for number in range(count)]


def test_a_killed_child_costs_its_pair_and_no_other(folder: Path, large: DiffTask) -> None:
    before = set(children_of(os.getpid()))
    with Engine(workers=2, seconds_per_pair=60, memory_bytes=1 << 30, max_pixels=MOST_PIXELS) as engine:

        def kill() -> None:
            os.kill(busy(os.getpid(), before), signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        results = {result.name: result for result in engine.diff([large, *small_tasks(folder, 12)])}
        killer.join()
        assert results.pop("large").reason == "crashed"
        assert not large.mask.exists()
        assert {result.changed_pixels for result in results.values()} == {100}
        assert len(results) == 12
        assert [result.reason for result in engine.diff(small_tasks(folder, 1))] == [None]


def test_children_killed_while_idle_are_replaced(folder: Path) -> None:
    before = set(children_of(os.getpid()))
    with Engine(workers=2, seconds_per_pair=60, memory_bytes=1 << 30, max_pixels=MOST_PIXELS) as engine:
        for _ in range(3):
            assert [result.reason for result in engine.diff(small_tasks(folder, 6))] == [None] * 6
            for child in set(children_of(os.getpid())) - before:
                os.kill(child, signal.SIGKILL)


def test_a_slow_pair_times_out_and_the_next_one_is_compared(folder: Path, large: DiffTask) -> None:
    with Engine(workers=1, seconds_per_pair=1.0, memory_bytes=1 << 30, max_pixels=MOST_PIXELS) as engine:
        results = {result.name: result for result in engine.diff([large, *small_tasks(folder, 3)])}
    assert results.pop("large").reason == "timed_out"
    assert not large.mask.exists()
    assert [result.reason for result in results.values()] == [None] * 3


def test_a_pair_that_needs_more_memory_than_allowed_fails_alone(folder: Path, large: DiffTask) -> None:
    with Engine(workers=1, seconds_per_pair=60, memory_bytes=100 << 20, max_pixels=MOST_PIXELS) as engine:
        results = {result.name: result for result in engine.diff([large, *small_tasks(folder, 3)])}
    assert results.pop("large").reason in {"image_processing_failed", "crashed"}
    assert [result.reason for result in results.values()] == [None] * 3


def test_no_secret_reaches_a_child(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SNAPSHED_SECRET", "SNAPSHED_DATABASE", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "PGPASSWORD", "DSN"):
        monkeypatch.setenv(name, "hush-hush")
    before = set(children_of(os.getpid()))
    with Engine(workers=1, seconds_per_pair=60, memory_bytes=1 << 30, max_pixels=MOST_PIXELS) as engine:
        list(engine.diff(small_tasks(folder, 1)))
        (child,) = set(children_of(os.getpid())) - before
        assert b"hush-hush" not in Path(f"/proc/{child}/environ").read_bytes()


def test_children_outlive_the_thread_that_first_used_the_engine(folder: Path) -> None:
    before = set(children_of(os.getpid()))
    with Engine(workers=1, seconds_per_pair=60, memory_bytes=1 << 30, max_pixels=MOST_PIXELS) as engine:
        first = threading.Thread(target=lambda: list(engine.diff(small_tasks(folder, 1))))
        first.start()
        first.join()
        children = set(children_of(os.getpid())) - before
        assert [result.reason for result in engine.diff(small_tasks(folder, 1))] == [None]
        assert set(children_of(os.getpid())) - before == children


def test_threads_share_an_engine(engine: Engine, folder: Path) -> None:
    counts: list[int] = []

    def work(name: str) -> None:
        place = folder / name
        place.mkdir()
        counts.extend(result.changed_pixels for result in engine.diff(small_tasks(place, 8)))

    threads = [threading.Thread(target=work, args=(f"t{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [100] * 32


def test_tasks_are_taken_only_as_they_are_needed(engine: Engine, folder: Path) -> None:
    taken: list[DiffTask] = []

    def source() -> Iterator[DiffTask]:
        for each in small_tasks(folder, 20):
            taken.append(each)
            yield each

    results = engine.diff(source())
    next(results)
    assert len(taken) <= 8
    results.close()  # pyright: ignore[reportAttributeAccessIssue]: a generator
    assert one(engine, folder, encoded(page()), encoded(page())).reason is None


def test_closing_ends_the_children_and_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = folder / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    before = set(children_of(os.getpid()))
    engine = Engine(workers=2, seconds_per_pair=60, memory_bytes=1 << 30, max_pixels=MOST_PIXELS)
    list(engine.diff(small_tasks(folder, 2)))
    children = set(children_of(os.getpid())) - before
    assert len(children) == 2
    assert list(scratch.iterdir())
    engine.close()
    engine.close()
    assert all(gone(child) for child in children)
    assert not list(scratch.iterdir())
    with pytest.raises(RuntimeError, match="closed"):
        list(engine.diff(small_tasks(folder, 1)))


SERVICE = """
import os, sys, threading
from pathlib import Path
with open(sys.argv[1] + "/imports", "a") as imports:
    imports.write(f"{__name__} {os.getpid()}\\n")
from snapshed.engine import DiffTask, Engine

def serve(folder):
    assert not {"numpy", "PIL", "blazediff"} & set(sys.modules)
    engine = Engine(workers=2, seconds_per_pair=60, memory_bytes=1 << 30, max_pixels=40_000_000)
    tasks = [DiffTask(str(n), folder / "a-head", folder / "a-base", folder / f"{n}-mask") for n in range(4)]
    print([result.changed_pixels for result in engine.diff(tasks)], flush=True)
    sys.stdin.read()
    engine.close()

thread = threading.Thread(target=serve, args=(Path(sys.argv[1]),))
thread.start()
thread.join()
"""


@pytest.fixture
def service(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A program without a main guard and without an ending, as console scripts are, with an engine in a thread."""
    script = folder / "snapshed"
    script.write_text(textwrap.dedent(SERVICE))
    changed = page()
    changed[:10, :10] = (255, 0, 255, 255)
    task(folder, encoded(changed), encoded(page()))
    with subprocess.Popen(
        [sys.executable, str(script), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(folder)},
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "[100, 100, 100, 100]\n"
        yield process
        process.kill()


def test_children_do_not_import_the_parents_program(service: subprocess.Popen[str], folder: Path) -> None:
    assert len(children_of(service.pid)) == 2
    assert (folder / "imports").read_text() == f"__main__ {service.pid}\n"
    service.communicate("")
    assert service.returncode == 0


def test_children_end_with_a_parent_that_is_killed(service: subprocess.Popen[str]) -> None:
    children = children_of(service.pid)
    assert len(children) == 2
    service.kill()
    service.wait()
    assert eventually(lambda: all(gone(child) for child in children))


def test_ctrl_c_is_the_parents_affair(service: subprocess.Popen[str]) -> None:
    children = children_of(service.pid)
    assert all(os.getpgid(child) not in {os.getpgrp(), os.getpgid(service.pid)} for child in children)
    for child in children:
        os.kill(child, signal.SIGINT)
        assert is_deaf_to(child, signal.SIGINT)
        assert not gone(child)
