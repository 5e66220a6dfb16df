"""Shifts among generated pages of rows, each pair labelled by how it was made: few false claims, few overlooked."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from snapshed.domain.shifts import moved_by

Rows = list[int]
_BLANK = 0
_OUTSIDE = -1
"""What a canvas has where the smaller image ends."""


def page(dice: random.Random) -> Rows:
    """Blocks of distinct rows (text, pictures) between blank ones, as most pages are."""
    rows: Rows = []
    while len(rows) < dice.randint(60, 400):
        if dice.random() < 0.15:
            rows += [dice.randrange(1, 1 << 40)] * dice.randint(2, 30)  # a flat band
        else:
            rows += [dice.randrange(1, 1 << 40) for _ in range(dice.randint(8, 24))]
        rows += [_BLANK] * dice.randint(3, 25)
    return rows


def strip(head: Rows, base: Rows) -> tuple[Rows, Rows]:
    """Both on one canvas, from the first row that differs to the last."""
    height = max(len(head), len(base))
    head, base = (rows + [_OUTSIDE] * (height - len(rows)) for rows in (head, base))
    changed = [place for place in range(height) if head[place] != base[place]]
    return (head[changed[0] : changed[-1] + 1], base[changed[0] : changed[-1] + 1]) if changed else ([], [])


def fresh(dice: random.Random, count: int) -> Rows:
    return [dice.randrange(1, 1 << 40) for _ in range(count)]


# --- What is a shift, and by how much ---------------------------------------------------------------------------------


def inserted(dice: random.Random, rows: Rows) -> tuple[Rows, int | None]:
    at, by = dice.randint(0, len(rows) - 30), dice.randint(1, 40)
    return rows[:at] + fresh(dice, by) + rows[at:], by


def inserted_blank(dice: random.Random, rows: Rows) -> tuple[Rows, int | None]:
    at, by = dice.randint(0, len(rows) - 30), dice.randint(1, 40)
    return rows[:at] + [_BLANK] * by + rows[at:], by


def inserted_in_a_window(dice: random.Random, rows: Rows) -> tuple[Rows, int | None]:
    """The image keeps its height, so what moved out of it is lost."""
    head, by = inserted(dice, rows)
    return head[: len(rows)], by


def removed(dice: random.Random, rows: Rows) -> tuple[Rows, int | None]:
    by = dice.randint(1, 40)
    at = dice.randint(0, len(rows) - by - 20)
    return rows[:at] + rows[at + by :], -by


def scrolled(dice: random.Random, rows: Rows) -> tuple[Rows, int | None]:
    by = dice.randint(1, len(rows) // 3)
    return rows[by:] + fresh(dice, by), -by


def below_a_header_above_a_footer(dice: random.Random, rows: Rows) -> tuple[Rows, int | None]:
    by = dice.randint(1, 12)
    body = rows[12:-12]
    return rows[:12] + fresh(dice, by) + body[:-by] + rows[-12:], by


SHIFTS = [inserted, inserted_blank, inserted_in_a_window, removed, scrolled, below_a_header_above_a_footer]


# --- What is none -----------------------------------------------------------------------------------------------------


def rewritten(dice: random.Random, rows: Rows) -> Rows:
    at, count = dice.randint(0, len(rows) - 20), dice.randint(1, 20)
    return rows[:at] + fresh(dice, count) + rows[at + count :]


def recoloured(dice: random.Random, rows: Rows) -> Rows:
    colour = dice.randrange(1, 1 << 40)
    return [row ^ colour if row else row for row in rows]


def rewritten_and_moved(dice: random.Random, rows: Rows) -> Rows:
    """What was rewritten lies in what moved, not in what is new."""
    at, by = dice.randint(0, len(rows) - 30), dice.randint(1, 40)
    head = rows[:at] + fresh(dice, by) + rows[at:]
    edit = dice.randint(at + by, len(head) - 6)
    return head[:edit] + fresh(dice, 5) + head[edit + 5 :]


def bar_changed_sides(dice: random.Random, rows: Rows) -> Rows:
    """A line above a flat band went below it."""
    at, flat, line = dice.randint(0, len(rows) - 20), dice.randrange(1, 1 << 40), dice.randrange(1, 1 << 40)
    rows[at : at + 10] = [line] + [flat] * 9
    return rows[:at] + [flat] * 8 + [line, line] + rows[at + 10 :]


def band_grew(dice: random.Random, rows: Rows) -> Rows:
    at, flat = dice.randint(0, len(rows) - 30), dice.randrange(1, 1 << 40)
    rows[at : at + 30] = [flat] * 10 + [_BLANK] * 20
    return rows[:at] + [flat] * 18 + [_BLANK] * 12 + rows[at + 30 :]


def replaced(dice: random.Random, rows: Rows) -> Rows:
    return page(dice)


OTHERS = [rewritten, recoloured, rewritten_and_moved, bar_changed_sides, band_grew, replaced]


def test_of_labelled_pairs_nearly_every_claim_is_right_and_nearly_every_shift_is_found() -> None:
    dice = random.Random(20)
    claimed = right = labelled = 0
    for _ in range(60):
        for make in SHIFTS:
            rows = page(dice)
            head, by = make(dice, rows)
            found = moved_by(*strip(head, rows))
            labelled += 1
            claimed += found is not None
            right += found == by
        for other in OTHERS:
            rows = page(dice)
            head = other(dice, rows)
            claimed += moved_by(*strip(head, rows)) is not None
    assert right / claimed >= 0.99
    assert right / labelled >= 0.9


@pytest.mark.parametrize("make", OTHERS)
def test_no_kind_of_other_change_is_taken_for_a_shift(make: Callable[[random.Random, Rows], Rows]) -> None:
    dice = random.Random(make.__name__)
    wrong = 0
    for _ in range(100):
        rows = page(dice)
        head = make(dice, rows)
        wrong += moved_by(*strip(head, rows)) is not None
    assert wrong <= 1


def test_a_flat_shape_that_moves_over_a_flat_ground_is_a_shift() -> None:
    assert moved_by([0, 0, 7, 7, 7], [7, 7, 7, 0, 0]) == 2
    assert moved_by([7, 7, 7, 0], [0, 7, 7, 7]) == -1
    # The ground overlaps more than the shape does; which is which, the row beside them tells.
    assert moved_by([0, 0, 0, 7, 7], [7, 7, 0, 0, 0], ground=0) == 3
    assert moved_by([0, 0, 0, 7, 7], [7, 7, 0, 0, 0], ground=7) == -2


def test_nothing_and_one_row_have_not_moved() -> None:
    assert moved_by([], []) is None
    assert moved_by([1], [2]) is None
    assert moved_by([1, 2, 3], [1, 2, 3]) is None
