"""Explanations on pictures whose story is known, because each pair was drawn for it: shifts, edges, and everything else."""

from __future__ import annotations

import io
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from snapshed.engine import DiffTask, Engine

WORDS = [
    "delete",
    "means",
    "shared",
    "image",
    "upload",
    "base",
    "head",
    "review",
    "commit",
    "branch",
    "receipt",
    "store",
    "object",
    "row",
    "mask",
    "hold",
]
Drawn = tuple[Image.Image, Image.Image]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(workers=2, seconds_per_pair=60, memory_bytes=1 << 30, max_pixels=10**7) as made:
        yield made


class Page:
    """A page as screenshots have them: a bar, a column of links beside blocks of text, buttons and pictures."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.ground = dice.choice([(255, 255, 255), (246, 247, 250), (18, 19, 23)])
        self.ink = (20, 22, 30) if self.ground[0] > 100 else (230, 232, 240)
        self.seed = dice.random()

    def draw(
        self, height: int = 420, *, gap: int = 0, at: int = 3, words: str = "", banner: bool = False
    ) -> Image.Image:
        """Always the same picture, but for `gap` rows in front of block `at`, and one word replaced by `words`."""
        dice = random.Random(self.seed)
        image = Image.new("RGB", (320, height), self.ground)
        draw = ImageDraw.Draw(image)
        draw.rectangle((0, 0, 320, 24), fill=(40, 70, 140))
        for number in range(8):
            draw.text((6, 40 + number * 22), dice.choice(WORDS), fill=self.ink, font_size=11)
        y = 36
        for number in range(7):
            if number == at:
                if banner and gap > 0:
                    draw.rectangle((90, y, 310, y + gap - 5), fill=(200, 60, 60))
                    draw.text((100, y), "notice", fill=(255, 255, 255), font_size=min(11, gap))
                y += gap
            line = " ".join(dice.choice(WORDS) for _ in range(5))
            draw.text((90, y), f"{words} {line}" if words and number == at else line, fill=self.ink, font_size=12)
            colour = (dice.randrange(256), dice.randrange(256), dice.randrange(256))
            draw.rounded_rectangle(
                (90, y + 20, 90 + dice.randint(60, 200), y + 20 + dice.randint(10, 22)), 4, fill=colour
            )
            y += 52
        return image


# --- Shifts -----------------------------------------------------------------------------------------------------------


def whole_column_down(page: Page) -> tuple[Drawn, int]:
    by = page.dice.randint(1, 40)
    return (page.draw(), page.draw(gap=by, at=0)), by


def blank_in_the_middle(page: Page) -> tuple[Drawn, int]:
    by = page.dice.randint(1, 40)
    return (page.draw(), page.draw(gap=by, at=page.dice.randint(1, 5))), by


def banner_in_the_middle(page: Page) -> tuple[Drawn, int]:
    by = page.dice.randint(10, 40)
    return (page.draw(), page.draw(gap=by, at=page.dice.randint(1, 5), banner=True)), by


def banner_on_a_page_that_grows(page: Page) -> tuple[Drawn, int]:
    by = page.dice.randint(10, 40)
    return (page.draw(420), page.draw(420 + by, gap=by, at=page.dice.randint(1, 5), banner=True)), by


def gap_closed(page: Page) -> tuple[Drawn, int]:
    by, at = page.dice.randint(1, 30), page.dice.randint(1, 5)
    return (page.draw(gap=by, at=at), page.draw(at=at)), -by


def button_moved(page: Page) -> tuple[Drawn, int]:
    by = page.dice.choice([-1, 1]) * page.dice.randint(2, 30)
    sides = []
    for y in (380, 380 + by):
        image = page.draw(480)
        ImageDraw.Draw(image).rounded_rectangle((10, y, 70, y + 20), 5, fill=(30, 140, 90))
        ImageDraw.Draw(image).text((18, y + 3), "Save", fill=(255, 255, 255), font_size=11)
        sides.append(image)
    return (sides[0], sides[1]), by


SHIFTS = [
    whole_column_down, blank_in_the_middle, banner_in_the_middle, banner_on_a_page_that_grows, gap_closed, button_moved,
]  # fmt: skip


# --- Edges ------------------------------------------------------------------------------------------------------------


def soft_circle(page: Page) -> Drawn:
    """The same disc, its edge smoothed by two renderers."""
    radius, sides = page.dice.randint(20, 60), []
    for scale in (8, 6):
        shape = Image.new("L", (160 * scale, 160 * scale), 0)
        middle, reach = 80 * scale, radius * scale
        ImageDraw.Draw(shape).ellipse((middle - reach, middle - reach, middle + reach, middle + reach), fill=255)
        image = page.draw(600)
        image.paste((190, 40, 60), (90, 420), shape.resize((160, 160), Image.Resampling.BOX))
        sides.append(image)
    return sides[0], sides[1]


# --- Everything else --------------------------------------------------------------------------------------------------


def other_words(page: Page) -> Drawn:
    return page.draw(), page.draw(words="new", at=page.dice.randint(0, 6))


def recoloured(page: Page) -> Drawn:
    image = page.draw()
    box = (90, page.dice.randint(30, 300), 300, 330)
    image.paste(Image.eval(image.crop(box), lambda value: 255 - value), box)
    return page.draw(), image


def moved_aside(page: Page) -> Drawn:
    image = page.draw()
    column = image.crop((90, 30, 310, 420))
    image.paste(page.ground, (90, 30, 310, 420))
    image.paste(column, (90 + page.dice.randint(1, 10), 30))
    return page.draw(), image


def moved_and_rewritten(page: Page) -> Drawn:
    at = page.dice.randint(0, 4)
    head = page.draw(gap=page.dice.randint(5, 30), at=at)
    ImageDraw.Draw(head).text((95, 330), "sold out", fill=(200, 0, 0), font_size=14)
    return page.draw(), head


def covered(page: Page) -> Drawn:
    """A box over the page, under which nothing moves."""
    image, top = page.draw(), page.dice.randint(40, 200)
    ImageDraw.Draw(image).rectangle((60, top, 280, top + page.dice.randint(40, 160)), fill=(250, 240, 200))
    return page.draw(), image


def another_page(page: Page) -> Drawn:
    return page.draw(), Page(page.dice).draw()


def grown_bar(page: Page) -> Drawn:
    sides = []
    for width in (page.dice.randint(20, 100), page.dice.randint(120, 200)):
        image = page.draw()
        ImageDraw.Draw(image).rectangle((95, 395, 95 + width, 410), fill=(20, 120, 200))
        sides.append(image)
    return sides[0], sides[1]


OTHERS: list[Callable[[Page], Drawn]] = [
    other_words, recoloured, moved_aside, moved_and_rewritten, covered, another_page, grown_bar,
]  # fmt: skip


def test_shifts_and_edges_are_told_rightly_and_seldom_overlooked(engine: Engine, tmp_path: Path) -> None:
    dice = random.Random(4)
    labels: dict[str, tuple[str | None, int | None]] = {}
    tasks: list[DiffTask] = []

    def add(kind: str, drawn: Drawn, label: tuple[str | None, int | None]) -> None:
        base, head = drawn
        name = f"{len(tasks):03}-{kind}"
        labels[name] = label
        paths = tmp_path / f"{name}-head", tmp_path / f"{name}-base"
        for path, image in zip(paths, (head, base), strict=True):
            buffer = io.BytesIO()
            image.save(buffer, "PNG", compress_level=1)
            path.write_bytes(buffer.getvalue())
        tasks.append(DiffTask(name, *paths, tmp_path / f"{name}-mask"))

    for _ in range(8):
        for shift in SHIFTS:
            drawn, by = shift(Page(dice))
            add(shift.__name__, drawn, ("moved", by))
        add("soft_circle", soft_circle(Page(dice)), ("antialiasing", None))
        for other in OTHERS:
            add(other.__name__, other(Page(dice)), (None, None))

    told: Counter[str] = Counter()
    right: Counter[str] = Counter()
    labelled = Counter(label for label, _ in labels.values() if label)
    wrong: list[str] = []
    for result in engine.diff(tasks):
        found = (result.explanation, result.moved_by)
        if result.explanation:
            told[result.explanation] += 1
            right[result.explanation] += found == labels[result.name]
        if found != labels[result.name]:
            wrong.append(f"{result.name}: {found}, drawn as {labels[result.name]}")
        assert (result.changed_pixels > 0) == (labels[result.name][0] != "antialiasing"), result.name
    for kind in ("moved", "antialiasing"):
        assert right[kind] >= 0.99 * told[kind], wrong
        assert right[kind] >= 0.9 * labelled[kind], wrong
