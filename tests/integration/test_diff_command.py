"""`snapshed diff` as a shell sees it: folders in, verdicts, exit codes and a report out. No server runs."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageCms, ImageDraw

Files = dict[str, bytes]


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def page(text: str = "Delete means delete", size: tuple[int, int] = (160, 90)) -> Image.Image:
    image = Image.new("RGB", size, (250, 250, 252))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, size[0], 14), fill=(30, 60, 120))
    draw.text((5, 30), text, fill=(20, 20, 20), font_size=11)
    return image


def empty_png(width: int, height: int) -> bytes:
    """A file that promises a picture and holds none of it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


SAME, OTHER = encoded(page()), encoded(page("Delete means hide"))


class Desk:
    """Two folders and a command that compares them."""

    def __init__(self, folder: Path) -> None:
        self.base, self.head, self.out = folder / "base", folder / "head", folder / "out"
        self.base.mkdir()
        self.head.mkdir()

    def lay(self, base: Files, head: Files) -> Desk:
        for folder, files in ((self.base, base), (self.head, head)):
            for name, data in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(data)
        return self

    def run(self, *more: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "snapshed", "diff", str(self.base), str(self.head), *more],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if not name.startswith("SNAPSHED_")},
            timeout=300,
        )
        assert "Traceback" not in done.stdout + done.stderr
        assert "internal error" not in done.stderr
        return done

    def told(self, *more: str) -> dict[str, Any]:
        """The one document on standard output."""
        return json.loads(self.run("--json", *more).stdout)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


# --- Verdicts ---------------------------------------------------------------------------------------------------------


def test_the_same_images_pass_with_zero(desk: Desk) -> None:
    done = desk.lay({"a.png": SAME, "b/c.png": OTHER}, {"a.png": SAME, "b/c.png": OTHER}).run()
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 images: 2 unchanged." in done.stdout


def test_a_changed_image_ends_with_one_and_a_removed_one_too(desk: Desk) -> None:
    assert desk.lay({"a.png": SAME}, {"a.png": OTHER}).run().returncode == 1
    (desk.head / "a.png").unlink()
    (desk.head / "b.png").write_bytes(encoded(page("Something new")))
    assert desk.run().returncode == 1


def test_other_bytes_for_the_same_pixels_are_unchanged_and_said_to_be(desk: Desk) -> None:
    told = desk.lay({"a.png": SAME}, {"a.png": encoded(page(), compress_level=1)}).told()
    assert (told["verdict"], told["images"]["a.png"]["status"]) == ("passed", "unchanged")
    assert told["images"]["a.png"]["explanation"] == "identical"


def test_the_threshold_of_the_command_and_of_the_image_decide_and_are_named(desk: Desk) -> None:
    desk.lay({"a.png": SAME, "b.png": SAME}, {"a.png": OTHER, "b.png": OTHER, "b.json": b'{"diff_threshold": 0}'})
    plain = desk.told()["images"]
    assert {entry["threshold_from"] for entry in plain.values()} == {"default", "image"}
    ratio = plain["a.png"]["passing_threshold"]
    assert ratio == plain["a.png"]["changed_pixels"] / plain["a.png"]["total_pixels"]
    told = desk.told("--diff-threshold", repr(ratio))["images"]
    assert (told["a.png"]["status"], told["a.png"]["threshold_from"]) == ("unchanged", "manifest")
    assert (told["b.png"]["status"], told["b.png"]["threshold_from"]) == ("changed", "image")
    below = desk.told("--diff-threshold", repr(ratio * 0.999))["images"]
    assert below["a.png"]["status"] == "changed"


def test_a_renamed_image_is_one_name_and_a_selective_head_skips(desk: Desk) -> None:
    desk.lay({"old.png": SAME, "kept.png": OTHER}, {"new.png": SAME})
    told = desk.told("--selective")
    assert told["images"]["new.png"]["previous_image_file_name"] == "old.png"
    assert (told["summary"]["renamed"], told["summary"]["skipped"], told["verdict"]) == (1, 1, "passed")


def test_a_wrong_folder_and_two_empty_ones_are_refused_in_one_sentence(desk: Desk) -> None:
    done = desk.run()
    assert (done.returncode, done.stdout) == (2, "")
    assert "no PNG or JPEG files" in done.stderr
    desk.base.rmdir()
    done = desk.run("--json")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)


# --- Whatever files hold ----------------------------------------------------------------------------------------------


def kinds() -> dict[str, tuple[bytes, bytes, str]]:
    """Base, head, and what becomes of the name."""
    transparent = page().convert("RGBA")
    transparent.putpixel((3, 50), (255, 0, 0, 0))
    deep = Image.new("I;16", (40, 30), 30_000)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    other = page("Delete means hide")
    return {
        "truncated.png": (SAME, SAME[:400], "errored"),
        "cut-header.png": (SAME, SAME[:20], "errored"),
        "truncated.jpg": (encoded(page(), "JPEG"), encoded(page(), "JPEG")[:700], "errored"),
        "no-image.png": (SAME, b"<svg onload='x'/>", "errored"),
        "gif.png": (encoded(page().convert("P"), "GIF"), SAME, "errored"),
        "empty.png": (SAME, b"", "errored"),
        "new-empty.png": (b"", b"", ""),
        "16-bit.png": (encoded(deep), encoded(Image.new("I;16", (40, 30), 60_000)), "changed"),
        "palette.png": (SAME, encoded(page().convert("P", palette=Image.Palette.ADAPTIVE)), "unchanged"),
        "cmyk.jpg": (encoded(page().convert("CMYK"), "JPEG"), encoded(other.convert("CMYK"), "JPEG"), "changed"),
        "animated.png": (SAME, encoded(page(), save_all=True, append_images=[other]), "unchanged"),
        "profile.png": (SAME, encoded(page(), icc_profile=profile), "unchanged"),
        "transparent.png": (SAME, encoded(transparent), "changed"),
        "dot.png": (encoded(page(size=(1, 1))), encoded(Image.new("RGB", (1, 1), (255, 0, 0))), "changed"),
        "wide.png": (encoded(page(size=(10_000, 1))), encoded(Image.new("RGB", (10_000, 1))), "changed"),
        "promise.png": (SAME, empty_png(60_000, 60_000), "errored"),
        "largest.png": (empty_png(8_000, 5_000), empty_png(8_000, 5_000) + b"x", "errored"),
    }


def test_every_file_is_compared_or_said_not_to_be_and_none_stops_the_others(desk: Desk) -> None:
    cases = kinds()
    del cases["new-empty.png"]
    desk.lay({name: case[0] for name, case in cases.items()}, {name: case[1] for name, case in cases.items()})
    desk.lay({}, {"new-broken.png": b"", "new-huge.png": empty_png(8_000, 5_001)})
    done = desk.run("--json")
    told = json.loads(done.stdout)
    became = {name: entry["status"] for name, entry in told["images"].items()}
    assert became == {name: case[2] for name, case in cases.items()} | dict.fromkeys(
        ("new-broken.png", "new-huge.png"), "errored"
    )
    assert all(entry["reason"] for entry in told["images"].values() if entry["status"] == "errored")
    assert told["images"]["promise.png"]["reason"] == told["images"]["new-huge.png"]["reason"] == "exceeds_pixel_limit"
    assert (done.returncode, told["verdict"]) == (2, "failed")


@pytest.mark.scale
def test_forty_million_pixels_are_compared_and_one_row_more_is_not(desk: Desk) -> None:
    largest = Image.new("L", (8_000, 5_000), 200)
    changed = largest.copy()
    changed.paste(0, (7_990, 4_990, 8_000, 5_000))
    files = [encoded(image, compress_level=1) for image in (largest, changed, Image.new("L", (8_000, 5_001), 200))]
    told = desk.lay({"a.png": files[0], "b.png": files[0]}, {"a.png": files[1], "b.png": files[2]}).told()["images"]
    assert (told["a.png"]["status"], told["a.png"]["changed_pixels"]) == ("changed", 100)
    assert told["a.png"]["regions"] == [{"x": 7_990, "y": 4_990, "width": 10, "height": 10}]
    assert (told["b.png"]["status"], told["b.png"]["reason"]) == ("errored", "exceeds_pixel_limit")


# --- The report -------------------------------------------------------------------------------------------------------


def test_the_report_is_whole_by_itself_and_no_name_gets_through_as_markup(desk: Desk, tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>\"'&.png".replace("/", "")
    desk.lay(
        {hostile: SAME, "sub/a.png": SAME}, {hostile: OTHER, "sub/a.png": SAME, "new.jpg": encoded(page(), "JPEG")}
    )
    done = desk.run("--out", str(desk.out))
    assert done.returncode == 1
    told = json.loads((desk.out / "report.json").read_text())
    mask = desk.out / told["images"][hostile]["diff_mask_path"]
    with Image.open(mask) as drawn:
        assert (drawn.mode, drawn.size) == ("L", (160, 90))
    html = (desk.out / "report.html").read_text()
    assert "<script" not in html.lower()
    assert hostile not in html
    moved = tmp_path / "elsewhere"
    desk.out.rename(moved)
    pictures = [line.split('"')[0] for line in html.split(' src="')[1:]]
    assert len(pictures) == 4
    assert all((moved / picture).is_file() for picture in pictures)


def test_an_earlier_report_is_replaced_and_anything_else_is_left_alone(desk: Desk) -> None:
    desk.lay({"a.png": SAME}, {"a.png": OTHER}).run("--out", str(desk.out))
    assert list((desk.out / "masks").iterdir())
    (desk.head / "a.png").write_bytes(SAME)
    assert desk.run("--out", str(desk.out)).returncode == 0
    assert not list((desk.out / "masks").iterdir())
    (desk.out / "notes.txt").write_text("mine")
    refused = desk.run("--out", str(desk.out))
    assert (refused.returncode, (desk.out / "notes.txt").read_text()) == (2, "mine")
    assert desk.run("--out", str(desk.head / "report")).returncode == 2
    assert not (desk.head / "report").exists()


def test_standard_output_carries_one_document_and_nothing_else(desk: Desk) -> None:
    done = desk.lay({"a.png": SAME}, {"a.png": OTHER, "a.json": b"[broken"}).run("--json", "--out", str(desk.out))
    assert json.loads(done.stdout) == json.loads((desk.out / "report.json").read_text())
    assert "a.json" in done.stderr
