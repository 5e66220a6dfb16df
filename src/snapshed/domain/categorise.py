"""Which image of a snapshot is compared with which of its base, and what is known without decoding either.

Every name ends in exactly one category; whether a pair of different files looks different is never decided here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

Category = Literal["added", "removed", "changed", "unchanged", "renamed", "skipped", "errored"]
Size = tuple[int, int]
ThresholdOrigin = Literal["image", "manifest", "default"]

# How much name similarity may cost, in pairs of characters: about a second for one digest, three for a whole plan.
# Hundreds of copies of one image (a blank page, a spinner) would otherwise take minutes, and their names tell little.
_MOST_FOR_A_DIGEST = 10_000_000
_MOST_FOR_A_PLAN = 30_000_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of a manifest; `diff_threshold` is its own, if it has one."""

    name: str
    digest: str
    width: int
    height: int
    diff_threshold: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A name whose category is known. What one side does not have, or what does not apply, is None."""

    name: str
    category: Category
    head_digest: str | None = None
    base_digest: str | None = None
    previous_name: str | None = None
    reason: str | None = None
    head_size: Size | None = None
    base_size: Size | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two different files of one name: both have to be decoded. `threshold` is the one in force, and whose it is."""

    name: str
    head: Entry
    base: Entry
    threshold: float
    threshold_from: ThresholdOrigin


@dataclass(frozen=True, slots=True)
class Plan:
    """Every name once, in `outcomes` or in `pairs`, each in order of names."""

    outcomes: tuple[Outcome, ...]
    pairs: tuple[Pair, ...]


def plan(
    head: Mapping[str, Entry],
    base: Mapping[str, Entry],
    *,
    selective: bool,
    all_names: Collection[str] | None,
    manifest_threshold: float | None,
    max_pixels: int = 40_000_000,
) -> Plan:
    """Put every name of either side into one category.

    | the head is           | a base name it does not have is                       |
    | complete              | removed                                               |
    | selective, no list    | skipped                                               |
    | selective with a list | skipped when the list has it, removed when it has not |

    | a name of         | with                    | is                                        |
    | both              | equal digests           | unchanged                                 |
    | both              | a canvas over the limit | errored                                   |
    | both              | anything else           | a pair, to be decoded                     |
    | the head          | a removed one's digest  | renamed, and the removed one is not listed |
    | the head          | a skipped one's digest  | renamed likewise, after all removed ones  |
    | the head          | anything else           | added                                     |
    | neither, but list | -                       | ignored                                   |
    """
    absent = base.keys() - head.keys()
    removed = _removed(absent, None if all_names is None else frozenset(all_names), selective=selective)
    added = head.keys() - base.keys()
    renamed = _renames(head, base, added, removed, absent - removed)

    outcomes = [_one_sided(head[name], None, "added") for name in added - renamed.keys()]
    consumed = frozenset(renamed.values())
    outcomes += [_one_sided(None, base[name], "removed") for name in removed - consumed]
    outcomes += [_one_sided(None, base[name], "skipped") for name in absent - removed - consumed]
    outcomes += [_one_sided(head[name], None, "renamed", previous) for name, previous in renamed.items()]

    pairs: list[Pair] = []
    for name in head.keys() & base.keys():
        ours, theirs = head[name], base[name]
        if ours.digest == theirs.digest:
            outcomes.append(_matched(ours, theirs, "unchanged", None))
        elif max(ours.width, theirs.width) * max(ours.height, theirs.height) > max_pixels:
            outcomes.append(_matched(ours, theirs, "errored", "exceeds_pixel_limit"))
        else:
            pairs.append(Pair(name, ours, theirs, *_threshold(ours, manifest_threshold)))
    return Plan(
        outcomes=tuple(sorted(outcomes, key=lambda outcome: outcome.name)),
        pairs=tuple(sorted(pairs, key=lambda pair: pair.name)),
    )


def judge(changed_pixels: int, total_pixels: int, threshold: float) -> Literal["changed", "unchanged"]:
    """Changed means a share of pixels strictly above the threshold: at 0, a single pixel is enough."""
    if total_pixels == 0:
        return "unchanged"
    return "changed" if changed_pixels / total_pixels > threshold else "unchanged"


def _threshold(head: Entry, manifest_threshold: float | None) -> tuple[float, ThresholdOrigin]:
    """The image's own, else its manifest's, else none. The base's thresholds never matter."""
    if head.diff_threshold is not None:
        return head.diff_threshold, "image"
    return (0.0, "default") if manifest_threshold is None else (manifest_threshold, "manifest")


def _removed(absent: Collection[str], all_names: frozenset[str] | None, *, selective: bool) -> frozenset[str]:
    if all_names is not None:
        return frozenset(absent) - all_names
    return frozenset() if selective else frozenset(absent)


def _one_sided(head: Entry | None, base: Entry | None, category: Category, previous: str | None = None) -> Outcome:
    present = head or base
    if present is None:
        raise ValueError("an outcome needs an image")
    return Outcome(
        name=present.name,
        category=category,
        head_digest=head.digest if head else None,
        base_digest=base.digest if base else None,
        previous_name=previous,
        head_size=_size(head) if head else None,
        base_size=_size(base) if base else None,
    )


def _matched(head: Entry, base: Entry, category: Category, reason: str | None) -> Outcome:
    return Outcome(
        name=head.name,
        category=category,
        head_digest=head.digest,
        base_digest=base.digest,
        reason=reason,
        head_size=_size(head),
        base_size=_size(base),
    )


def _size(entry: Entry) -> Size:
    return entry.width, entry.height


# --- Renames -----------------------------------------------------------------------------------


def _renames(
    head: Mapping[str, Entry],
    base: Mapping[str, Entry],
    added: Collection[str],
    removed: Collection[str],
    skipped: Collection[str],
) -> dict[str, str]:
    """New name to old name, one-to-one, equal digests only. Removed names go first: a skipped one may still exist."""
    budget = _Budget(_MOST_FOR_A_PLAN)
    new = _by_digest(head, added)
    renamed = _match(new, _by_digest(base, removed), budget)
    left = {digest: [name for name in names if name not in renamed] for digest, names in new.items()}
    return renamed | _match(left, _by_digest(base, skipped), budget)


def _by_digest(entries: Mapping[str, Entry], names: Iterable[str]) -> dict[str, list[str]]:
    """Names in order, so that nothing below depends on how a set happens to iterate."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        groups[entries[name].digest].append(name)
    return groups


def _match(new: Mapping[str, list[str]], old: Mapping[str, list[str]], budget: _Budget) -> dict[str, str]:
    matched: dict[str, str] = {}
    for digest in sorted(new.keys() & old.keys()):
        news, olds = new[digest], old[digest]
        if len(news) == len(olds) == 1:
            matched[news[0]] = olds[0]
        elif budget.spend(_length(news) * _length(olds)):
            matched.update(_most_similar(news, olds))
        else:
            # The images are equal whichever way they pair, and order tends to survive a renamed folder or a new suffix.
            matched.update(zip(news, olds, strict=False))
    return matched


def _most_similar(news: list[str], olds: list[str]) -> dict[str, str]:
    """The most similar two names pair up, then the most similar of the rest; ties go by name, new one first."""
    ranked: list[tuple[float, str, str]] = []
    matcher = SequenceMatcher[str]()
    for old in olds:
        matcher.set_seq2(old)  # what is costly to prepare is prepared once
        for new in news:
            matcher.set_seq1(new)
            ranked.append((-matcher.ratio(), new, old))
    matched: dict[str, str] = {}
    taken: set[str] = set()
    for _, new, old in sorted(ranked):
        if new not in matched and old not in taken:
            matched[new] = old
            taken.add(old)
    return matched


def _length(names: list[str]) -> int:
    return sum(map(len, names))


class _Budget:
    """What is left for comparing names."""

    def __init__(self, left: int) -> None:
        self._left = left

    def spend(self, cost: int) -> bool:
        """Take `cost` if one digest may cost that much and it is left."""
        if cost > min(_MOST_FOR_A_DIGEST, self._left):
            return False
        self._left -= cost
        return True
