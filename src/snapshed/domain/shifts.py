"""Whether rows of pixels only moved up or down, told from one number a row. Pure: no pixel is seen here.

A shift is an explanation for people; whether an image counts as changed never depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence

_TELLING = 3
"""So many different rows in a row are no coincidence; fewer may be a border that changed sides."""


def moved_by(head: Sequence[int], base: Sequence[int], ground: int | None = None) -> int | None:
    """By how many rows the content of `base` moved, down if positive, or None if that does not explain the difference.

    Both are the same rows of one canvas, each told by a number, from the first changed row to the last; `ground` is the
    row beside them, if there is one: it tells a flat shape from the flat ground it moved over.

        base  A B C D E F        head  x y A B C D      moved down by 2: x y are new, E F are cut off or were empty

    Of a shift down, the rows that stay in view are the end of `head` and the beginning of `base`; of a shift up, the
    other way round. The longest such stretch is the smallest shift; of a shift either way, the smaller one is told.
    """
    if len(head) != len(base):
        raise ValueError("a shift is looked for on one canvas")
    length = len(head)
    down, up = _longest_overlap(base, head), _longest_overlap(head, base)
    found: list[tuple[int, int]] = []
    if _is_telling(base[:down], head[: length - down], base[down:], ground):
        found.append((down, length - down))
    if _is_telling(head[:up], head[up:], base[: length - up], ground):
        found.append((up, up - length))
    return max(found)[1] if found else None


# | the rows that stayed are     | the rows that are new and those that went            | it is                      |
# |------------------------------|------------------------------------------------------|----------------------------|
# | three different ones or more | no more than stayed                                  | a shift                    |
# | three different ones or more | more, but the new or the gone ones are all alike     | a shift: blank or cut off  |
# | one or two different ones    | all alike on both sides, and the content is not      | a flat shape that moved    |
# | anything else                |                                                      | no shift                   |
def _is_telling(stayed: Sequence[int], new: Sequence[int], gone: Sequence[int], ground: int | None) -> bool:
    if not stayed or not new:
        return False
    is_blank = len(set(new)) == 1, len(set(gone)) == 1
    if len(set(stayed)) >= _TELLING:
        return len(stayed) >= len(new) or any(is_blank)
    over = new[0]
    is_over_ground = all(is_blank) and gone[0] == over and ground in (None, over)
    return is_over_ground and len(stayed) > 1 and over not in (stayed[0], stayed[-1])


def _longest_overlap(prefix_of: Sequence[int], suffix_of: Sequence[int]) -> int:
    """The longest beginning of the one that is an end of the other, shorter than the whole; linear time."""
    # The failure function of Knuth, Morris and Pratt, over both with a separator that equals no row between them.
    joined: list[int | None] = [*prefix_of, None, *suffix_of]
    failure = [0] * len(joined)
    for place in range(1, len(joined)):
        length = failure[place - 1]
        while length and joined[place] != joined[length]:
            length = failure[length - 1]
        failure[place] = length + 1 if joined[place] == joined[length] else 0
    longest = failure[-1] if len(prefix_of) else 0
    # The whole would mean that nothing moved at all.
    return failure[longest - 1] if longest == len(prefix_of) and longest else longest
