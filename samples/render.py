"""Renders the sample site in its two versions and saves the screenshots that ship with the package.
Afterwards it compares both sides and fails unless every difference is one that `shots.toml` declares.
"""

import argparse
import json
import shutil
import struct
import sys
import tomllib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import blazediff
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image, ImageChops
from playwright.sync_api import Browser, BrowserType, Page, sync_playwright

HERE = Path(__file__).resolve().parent
SITE = HERE / "site"
OUT = HERE.parent / "src" / "snapshed" / "samples"
VERSIONS = ("base", "head")
MAX_BYTES = 3_000_000
DIFF_THRESHOLD = 0.01
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER_ARGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-lcd-text",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
)

Expected = dict[str, Any]


@dataclass(frozen=True)
class Shot:
    """One picture and the way it differs between the two versions."""

    name: str
    page: str
    size: tuple[int, int]
    full: bool = False
    only: str | None = None
    was: str | None = None
    kind: str | None = None
    sidecar: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def theme(self) -> str:
        return "dark" if self.name.startswith("dark/") else "light"

    def name_in(self, version: str) -> str | None:
        """Name of the picture in one version, or None where that version lacks it."""
        if self.only not in (None, version):
            return None
        return self.was if self.was and version == "base" else self.name


def load_shots() -> list[Shot]:
    """Reads the list of pictures and fills in the folder's window size."""
    data = tomllib.loads((HERE / "shots.toml").read_text())
    sizes: dict[str, list[int]] = data["sizes"]
    return [_shot(row, sizes) for row in data["shots"]]


def _shot(row: dict[str, Any], sizes: dict[str, list[int]]) -> Shot:
    name: str = row["name"]
    width, height = row.get("size") or sizes[name.partition("/")[0]]
    rest = {key: value for key, value in row.items() if key not in {"name", "page", "size"}}
    return Shot(name=name, page=row.get("page", name), size=(width, height), **rest)


def site_html(shot: Shot, version: str) -> str:
    """Fills in the template of one page for one version."""
    env = Environment(loader=FileSystemLoader(SITE), undefined=StrictUndefined, autoescape=True)
    data: dict[str, Any] = json.loads((SITE / "data.json").read_text())
    return env.get_template(f"{shot.page}.html").render(version=version, theme=shot.theme, **data)


def take(page: Page, shot: Shot, version: str) -> bytes:
    """Loads one page into the browser and returns its screenshot as an RGB PNG."""
    page.set_viewport_size({"width": shot.size[0], "height": shot.size[1]})
    page.set_content(site_html(shot, version), wait_until="load")
    page.evaluate("document.fonts.ready")
    raw = page.screenshot(full_page=shot.full, animations="disabled", caret="hide", scale="css")
    with Image.open(BytesIO(raw)) as image:
        pixels = image.convert("RGB")
    return pack_plainly(pixels) if shot.kind == "bytes" and version == "head" else pack_tightly(pixels)


def pack_plainly(image: Image.Image) -> bytes:
    """Encodes a PNG the usual way."""
    out = BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def pack_tightly(image: Image.Image) -> bytes:
    """Encodes an RGB PNG with unfiltered rows, which for flat pages is a fifth smaller than the usual way."""
    stride, pixels = image.width * 3, image.tobytes()
    rows = b"".join(b"\0" + pixels[at : at + stride] for at in range(0, len(pixels), stride))
    header = struct.pack(">IIBBBBB", image.width, image.height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def launch(kind: BrowserType) -> Browser:
    """Starts the system's Chromium."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise SystemExit(f"none of these browsers is on PATH: {', '.join(BROWSERS)}")
    return kind.launch(executable_path=found, args=list(BROWSER_ARGS))


def render(shots: list[Shot]) -> None:
    """Replaces both sides on disk with fresh pictures."""
    with sync_playwright() as playwright:
        browser = launch(playwright.chromium)
        context = browser.new_context(
            device_scale_factor=1, reduced_motion="reduce", locale="en-GB", timezone_id="UTC", offline=True
        )
        page = context.new_page()
        for version in VERSIONS:
            shutil.rmtree(OUT / version, ignore_errors=True)
            for shot in shots:
                save(shot, version, page)
        browser.close()


def save(shot: Shot, version: str, page: Page) -> None:
    """Takes one picture of one version and writes it with its sidecar."""
    name = shot.name_in(version)
    if name is None:
        return
    path = OUT / version / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(take(page, shot, version))
    if shot.sidecar:
        path.with_suffix(".json").write_text(json.dumps(shot.sidecar, indent=2) + "\n")


def declared(shots: list[Shot]) -> Expected:
    """States what a comparison of the two sides has to find."""
    plain = [s for s in shots if not (s.only or s.was or s.kind)]
    return {
        "added": _names(s for s in shots if s.only == "head"),
        "removed": _names(s for s in shots if s.only == "base"),
        "renamed": {f"{s.name}.png": f"{s.was}.png" for s in shots if s.was},
        "changed": _names(s for s in shots if s.kind == "changed"),
        "unchanged_but_different_bytes_or_antialiasing": _names(s for s in shots if s.kind in {"bytes", "edges"}),
        "unchanged": len(plain),
    }


def _names(shots: Iterator[Shot]) -> list[str]:
    return sorted(f"{shot.name}.png" for shot in shots)


def found() -> Expected:
    """Compares the two sides on disk, without looking at what is declared."""
    base, head = (_pictures(version) for version in VERSIONS)
    added, removed = sorted(head.keys() - base.keys()), sorted(base.keys() - head.keys())
    old_by_bytes = {base[name]: name for name in removed}
    renamed = {name: old_by_bytes[head[name]] for name in added if head[name] in old_by_bytes}
    differ = sorted(name for name in base.keys() & head.keys() if base[name] != head[name])
    changed = [name for name in differ if visibly_differs(name)]
    return {
        "added": [name for name in added if name not in renamed],
        "removed": [name for name in removed if name not in renamed.values()],
        "renamed": renamed,
        "changed": changed,
        "unchanged_but_different_bytes_or_antialiasing": [name for name in differ if name not in changed],
        "unchanged": len(base.keys() & head.keys()) - len(differ),
    }


def _pictures(version: str) -> dict[str, bytes]:
    root = OUT / version
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.png"))}


def visibly_differs(name: str) -> bool:
    """Tells whether a picture differs in size or in more than anti-aliased edge pixels."""
    base, head = (OUT / version / name for version in VERSIONS)
    with Image.open(base) as one, Image.open(head) as two:
        if one.size != two.size:
            return True
        if ImageChops.difference(one, two).getbbox() is None:
            return False
    compare = blazediff.compare  # pyright: ignore[reportAttributeAccessIssue]
    result = compare(str(base), str(head), threshold=DIFF_THRESHOLD, antialiasing=True)
    return not result.match_result


def check(expected: Expected) -> None:
    """Fails when the pictures on disk are not what is expected, or too large to ship."""
    actual = found()
    wrong = [
        f"{key}: expected {expected[key]}, found {actual[key]}" for key in expected if expected[key] != actual[key]
    ]
    if wrong:
        raise SystemExit("\n".join(wrong))
    pictures = {version: _pictures(version) for version in VERSIONS}
    size = sum(len(data) for side in pictures.values() for data in side.values())
    if size > MAX_BYTES:
        raise SystemExit(f"the pictures take {size} bytes, more than {MAX_BYTES}")
    counts = ", ".join(f"{len(side)} in {version}" for version, side in pictures.items())
    sys.stdout.write(f"{counts}, {expected['unchanged']} identical, {size} bytes\n")


def main() -> None:
    """Renders and checks, or with --check only compares what is on disk."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare the pictures on disk, render nothing")
    only_check: bool = parser.parse_args().check
    expected_path = OUT / "expected.json"
    if not only_check:
        shots = load_shots()
        render(shots)
        expected_path.write_text(json.dumps(declared(shots), indent=2) + "\n")
    check(json.loads(expected_path.read_text()))


if __name__ == "__main__":
    main()
