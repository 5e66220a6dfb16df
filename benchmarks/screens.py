"""Folders of images that look like screenshots of a product: the samples, each made its own by a small mark, and what a
release does to some of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw

SAMPLES = Path(__file__).parents[1] / "src" / "snapshed" / "samples" / "base"
PAGES = sorted(path for path in SAMPLES.rglob("*.png") if "components" not in path.parts)

CARD = (0, 0, 320, 240)
"""The part of a page that a small component would be."""

Change = Callable[[Image.Image, random.Random], Image.Image]


@cache
def _page(number: int) -> Image.Image:
    return Image.open(PAGES[number]).convert("RGB")


def marked(number: int) -> Image.Image:
    """One of the sample pages with a row of small squares that no other number has."""
    image = _page(number % len(PAGES)).copy()
    draw = ImageDraw.Draw(image)
    for bit in range(20):
        shade = 40 if number >> bit & 1 else 215
        draw.rectangle((4 + bit * 8, 4, 9 + bit * 8, 9), fill=(shade, shade, shade))
    return image


def reworded(image: Image.Image, dice: random.Random) -> Image.Image:
    """A line of text reads otherwise: a strip is replaced by one from elsewhere on the page."""
    width, height = image.size
    strip = (width // 5, 18)
    to, source = ((dice.randrange(width - strip[0]), dice.randrange(20, height - strip[1])) for _ in range(2))
    changed = image.copy()
    changed.paste(image.crop((*source, source[0] + strip[0], source[1] + strip[1])), to)
    ImageDraw.Draw(changed).text(to, f"No. {dice.randrange(10**6)}", fill=(30, 30, 30))
    return changed


def recoloured(image: Image.Image, dice: random.Random) -> Image.Image:
    """A button or a card has another colour."""
    width, height = image.size
    left, top = dice.randrange(width * 2 // 3), dice.randrange(20, height * 2 // 3)
    box = (left, top, left + width // 6, top + 48)
    changed = image.copy()
    changed.paste(ImageChops.multiply(image.crop(box), Image.new("RGB", (box[2] - left, 48), (210, 225, 255))), box)
    return changed


def pushed_down(image: Image.Image, dice: random.Random) -> Image.Image:
    """Something was put in and everything below it moved down."""
    width, height = image.size
    at, by = dice.randrange(20, height // 2), dice.choice((8, 16, 24, 40))
    changed = image.copy()
    changed.paste(image.crop((0, at, width, height - by)), (0, at + by))
    changed.paste((250, 250, 250), (0, at, width, at + by))
    return changed


def redrawn(image: Image.Image, dice: random.Random) -> Image.Image:
    """Nearly every pixel differs a little, as after a new theme."""
    del dice
    return ImageChops.multiply(image, Image.new("RGB", image.size, (236, 240, 248)))


USUAL: Sequence[Change] = (reworded, recoloured, reworded, pushed_down, recoloured, reworded, reworded, redrawn)


def folders(
    place: Path, images: int, changed: int, seed: int = 1, box: tuple[int, int, int, int] | None = None
) -> tuple[Path, Path]:
    """A folder of `images` pages, or of that part of each, and another in which `changed` of them changed. The others are
    byte for byte the same."""
    dice = random.Random(seed)
    base, head = place / "base", place / "head"
    base.mkdir(parents=True)
    head.mkdir()
    chosen = set(dice.sample(range(images), changed))
    for number in range(images):
        name = f"page-{number:05}.png"
        image = marked(number) if box is None else marked(number).crop(box)
        image.save(base / name, compress_level=1)
        if number in chosen:
            USUAL[number % len(USUAL)](image, dice).save(head / name, compress_level=1)
        else:
            (head / name).hardlink_to(base / name)
    return base, head


def pairs(place: Path, count: int, changes: Sequence[Change], seed: int = 1) -> list[tuple[Path, Path]]:
    """As many pages and what a change made of each; the changes take turns."""
    dice = random.Random(seed)
    place.mkdir(parents=True)
    made: list[tuple[Path, Path]] = []
    for number in range(count):
        base, head = place / f"{number:03}-base.png", place / f"{number:03}-head.png"
        image = marked(number)
        image.save(base, compress_level=1)
        changes[number % len(changes)](image, dice).save(head, compress_level=1)
        made.append((base, head))
    return made
