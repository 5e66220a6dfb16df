"""One comparison and its mask, while the base, the head or both are deleted.

Every mask is made of both sides, so whoever deletes either side answers for every mask there ever was. Workers die,
lose their claim and go on unknowing; a run makes one mask.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, NamedTuple

from model.search import Model, Step, put

SIDES = ("base", "head")
NOTHING: frozenset[int] = frozenset()


class State(NamedTuple):
    row: str | None  # the comparison: none, waiting, running, done, failed
    claim: int  # whose the row is, counted up by every claim
    workers: frozenset[tuple[str, int, int]]  # what each does, under which claim, with which mask
    names: frozenset[int]  # the masks the row names
    masks: int  # how many keys were issued
    puts: frozenset[tuple[int, str]]  # unsent, sent, or landed and not yet noticed
    store: frozenset[int]
    announced: frozenset[int]
    live: frozenset[int]
    condemned: frozenset[int]
    candidates: frozenset[int]
    removals: frozenset[tuple[int, bool, str]]  # key, can no put land after it?, sent or done
    marks: tuple[str | None, ...]  # per side: marked, released
    deletions: tuple[str | None, ...]  # open, complete
    released: frozenset[tuple[int, int]]  # deletion, mask


class Derived(Model):
    GUARDS: ClassVar[dict[str, str]] = {
        "starts unmarked": "a comparison starts only while both sides are unmarked",
        "foreign key": "a comparison and its sides hold each other by foreign keys",
        "reads skip marked": "no mask is served while a side is marked",
        "mask has owner": "a mask is announced under its comparison's row, locked",
        "claim counts": "who has lost the claim announces and commits nothing",
        "next run condemns": "a run condemns what an earlier one announced",
        "failure condemns": "a comparison that is given up condemns what was announced for it",
        "release announced": "T5b condemns announced masks as well",
        "release made of": "T5b releases what is made of its target, whether a row names it or not",
        "fence": "a removal closes a tombstone only if no put can land after it",
    }

    def __init__(self, without: Iterable[str] = (), *, masks: int = 2, claims: int = 2) -> None:
        super().__init__(without)
        self.masks = masks
        self.claims = claims

    def starts(self) -> Iterable[State]:
        none = (None, None)
        return [
            State(
                None, 0, frozenset(), NOTHING, 0, frozenset(), NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, frozenset(), none,
                none, frozenset(),
            )
        ]  # fmt: skip

    # --- Promises -----------------------------------------------------------------------------------------------------

    def at_rest(self, s: State) -> bool:
        busy = s.workers or s.row in ("waiting", "running") or s.condemned or s.candidates or s.removals
        return not busy and all(how == "landed" for _, how in s.puts) and "open" not in s.deletions

    def broken(self, s: State) -> str | None:
        if not s.names <= s.live or not s.live <= s.store:
            return "I1 the comparison names a mask that is not there"
        if s.row and "released" in s.marks:
            return "I1 a comparison names a snapshot that is gone"
        if "complete" in s.deletions and s.store:
            return "I12 a deletion is complete, and a mask made of what it deleted is in the store"
        if s.store - s.live - s.announced - s.condemned:
            return "I4 the store has a mask that no row knows"
        if "reads skip marked" in self.without and s.names and s.marks != (None, None):
            return "I8 a mask is read after the deletion of a side was answered"
        if self.at_rest(s) and (s.store != s.names or s.announced):
            return f"I3 at rest {len(s.store)} masks are stored, {len(s.announced)} announced, {len(s.names)} named"
        return None

    # --- Everything that may happen -------------------------------------------------------------------------------------

    def steps(self, s: State) -> Iterator[Step]:
        yield from self._workers(s)
        yield from self._supervision(s)
        for side in (0, 1):
            yield from self._deletion(s, side)
        yield from self._tidying(s)
        yield from self._store(s)

    def _workers(self, s: State) -> Iterator[Step]:
        unmarked = s.marks == (None, None) or "starts unmarked" in self.without
        there = "released" not in s.marks or "foreign key" in self.without
        if s.row is None and s.claim == 0 and unmarked and there:
            yield Step("T4 adds the comparison", s._replace(row="waiting"), alone=False)
        # A claim may end while its worker sleeps: then there are two who think it is theirs.
        if s.row in ("waiting", "running") and s.claim < self.claims and unmarked and there:
            claim = s.claim + 1
            n = s._replace(row="running", claim=claim, workers=s.workers | {("compare", claim, -1)})
            if "next run condemns" not in self.without:
                n = self._give_up(n)
            yield Step(f"worker {claim} claims the comparison", n, alone=False)
        for worker in s.workers:
            yield from self._worker(s, *worker)

    def _worker(self, s: State, doing: str, claim: int, key: int) -> Iterator[Step]:
        stopped = s._replace(workers=s.workers - {(doing, claim, key)})
        mine = s.row == "running" and (claim == s.claim or "claim counts" in self.without)
        owned = mine and s.marks == (None, None)
        if doing == "compare" and not owned and "mask has owner" not in self.without:
            yield Step(f"worker {claim} may not announce: the comparison is not its any more", stopped, alone=False)
        elif doing == "compare":
            if s.masks < self.masks:
                new = s.masks
                n = stopped._replace(
                    workers=stopped.workers | {("store", claim, new)},
                    masks=new + 1,
                    puts=s.puts | {(new, "unsent")},
                    announced=s.announced | {new},
                )
                yield Step(f"worker {claim} announces mask {new}", n, alone=False)
        elif (key, "landed") in s.puts:
            noticed = stopped._replace(puts=s.puts - {(key, "landed")})
            if owned and key in s.announced:
                n = noticed._replace(row="done", names=s.names | {key}, live=s.live | {key})
                n = n._replace(announced=s.announced - {key})
                yield Step(f"worker {claim} commits the comparison, naming mask {key}", n, alone=False)
            else:
                yield Step(f"worker {claim} may not commit: the comparison is not its any more", noticed, alone=False)
        else:
            n = self._give_up(stopped, frozenset({key}))
            n = n._replace(row="waiting") if mine else n
            yield Step(f"worker {claim} gives up the put of mask {key} and gives back", n, alone=False)
        yield Step(f"worker {claim} dies", stopped, alone=False)

    def _supervision(self, s: State) -> Iterator[Step]:
        """After some attempts a comparison is failed instead of taken again."""
        if s.row in ("waiting", "running") and (s.claim == self.claims or s.claim == 0):
            n = s._replace(row="failed")
            if "failure condemns" not in self.without:
                n = self._give_up(n)
            yield Step("the comparison is failed after its last attempt", n)

    def _deletion(self, s: State, side: int) -> Iterator[Step]:
        name = SIDES[side]
        if s.deletions[side] is None:
            n = s._replace(marks=put(s.marks, side, "marked"), deletions=put(s.deletions, side, "open"))
            yield Step(f"T5a marks the {name}, answered", n, alone=False)
        if s.marks[side] == "marked":
            announced = NOTHING if "release announced" in self.without else s.announced
            unnamed = NOTHING if "release made of" in self.without else s.live | s.condemned
            let_go = s.names | announced | unnamed
            n = self._give_up(s, announced)
            n = n._replace(
                row=None,
                names=NOTHING,
                candidates=s.candidates | s.names,
                released=s.released | {(side, mask) for mask in let_go},
                marks=put(s.marks, side, "released"),
            )
            yield Step(f"T5b releases the {name} and its comparison", n)
        standing = s.announced | s.live | s.condemned
        waits = any(deletion == side and mask in standing for deletion, mask in s.released)
        if s.deletions[side] == "open" and s.marks[side] == "released" and not waits:
            n = s._replace(deletions=put(s.deletions, side, "complete"))
            yield Step(f"T9 closes the deletion of the {name}", n)

    def _give_up(self, s: State, masks: frozenset[int] | None = None) -> State:
        gone = s.announced if masks is None else s.announced & masks
        return s._replace(announced=s.announced - gone, condemned=s.condemned | gone)

    def _tidying(self, s: State) -> Iterator[Step]:
        for mask in s.candidates:
            n = s._replace(candidates=s.candidates - {mask})
            if mask in s.live and mask not in s.names:
                n = n._replace(live=s.live - {mask}, condemned=s.condemned | {mask})
                yield Step(f"T6 condemns mask {mask}", n)
            else:
                yield Step(f"T6 settles mask {mask}", n)
        for mask in range(s.masks):
            if mask not in s.live | s.announced and not s.removals:
                final = "fence" in self.without or not self._may_land(s, mask)
                n = s._replace(removals=s.removals | {(mask, final, "sent")})
                yield Step(f"T7 sends the removal of mask {mask}", n)
        for mask, final, how in s.removals:
            rest = s.removals - {(mask, final, how)}
            if how == "sent":
                n = s._replace(removals=rest | {(mask, final, "done")}, store=s.store - {mask})
                yield Step(f"the removal of mask {mask} lands", n)
            elif final:
                n = s._replace(removals=rest, condemned=s.condemned - {mask})
                yield Step(f"T7 is answered and closes the tombstone of mask {mask}", n)
            yield Step(f"the removal of mask {mask} is lost or not answered", s._replace(removals=rest))

    def _may_land(self, s: State, mask: int) -> bool:
        return (mask, "unsent") in s.puts or (mask, "sent") in s.puts

    def _store(self, s: State) -> Iterator[Step]:
        for mask, how in s.puts:
            rest = s.puts - {(mask, how)}
            if how == "unsent":
                yield Step(f"the put of mask {mask} is sent", s._replace(puts=rest | {(mask, "sent")}), alone=False)
            if how == "sent":
                n = s._replace(puts=rest | {(mask, "landed")}, store=s.store | {mask})
                yield Step(f"the put of mask {mask} lands", n)
            if how != "landed":
                yield Step(f"the deadline of mask {mask} passes", s._replace(puts=rest))
