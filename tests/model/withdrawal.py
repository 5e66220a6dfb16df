"""One image withdrawn from every snapshot of a project, in one transaction, beside everything that may use it.

The head and another snapshot name image x, the base names image y, and head and base are compared. Beside the withdrawal
of x: the withdrawal of y, the deletion of the head or the other snapshot, a comparison with both images in memory, and a
session that asks for x, stores it again, or names it from memory. Removals that are doubled or late are in `blobs`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, NamedTuple

from model.search import Model, Step, put

HEAD, BASE, OTHER, NEW = 0, 1, 2, 3
SNAPSHOTS = ("head", "base", "other snapshot", "new snapshot")
WITHDRAWALS = ("x", "y")
DELETION = 2
IMAGES = {"x": frozenset({"x0", "x1"}), "y": frozenset({"y0"})}
NOTHING: frozenset[str] = frozenset()


class State(NamedTuple):
    names: frozenset[tuple[int, str]]  # snapshot, blob: those of a marked snapshot too
    mark: tuple[int | None, str]  # which snapshot the deletion takes, and marked or released
    row: str | None  # the comparison: waiting, running, done, failed, or gone
    claim: int
    workers: frozenset[tuple[str, int, str]]  # what each does, under which claim, with which mask
    mask: str  # the mask the comparison names, or nothing
    masks: int  # how many keys were issued
    session: str
    client: tuple[str, str]  # what the uploader does next, with which blob
    pins: frozenset[tuple[str, str]]  # blob, told or stored
    puts: frozenset[tuple[str, str]]  # unsent, sent, or landed and not yet noticed
    store: frozenset[str]
    announced: frozenset[str]
    live: frozenset[str]
    condemned: frozenset[str]
    candidates: frozenset[str]
    deletions: tuple[str | None, ...]  # the withdrawals of x and y, and the deletion: open, complete
    released: frozenset[tuple[int, str]]
    owed: frozenset[tuple[int, str]]  # what each must answer for, whatever its release rows say
    later: frozenset[int]  # withdrawals that have still to empty the masks; only without a guard


class Withdrawal(Model):
    GUARDS: ClassVar[dict[str, str]] = {
        "project lock": "the withdrawal waits for every commit of a snapshot in its project, and they for it",
        "same digest": "it releases standing tombstones of the digest",
        "release shared": "it releases the image although a marked snapshot still names it",
        "marked left alone": "it leaves the rows of a marked snapshot to that snapshot's deletion",
        "masks at once": "it empties the references to masks in the transaction that hides the image",
        "masks of marked": "it takes the comparisons of marked snapshots that name the image as well",
        "made of": "it releases whatever is made of its snapshots and no row names, not only what rows name",
        "reset": "it takes the claim from every comparison of a snapshot it empties",
        "lock comparisons": "it locks those comparisons whatever their state, and looks at the state afterwards",
        "condemn announced": "it condemns what a running comparison has announced",
        "finished too": "it condemns what was announced for a finished comparison as well",
        "next run condemns": "a run condemns what an earlier one announced, and so does whoever fails the comparison",
        "claim counts": "who has lost the claim announces and commits nothing",
        "enqueue": "emptied references are enqueued",
        "foreign key": "the database refuses to condemn what is named or pinned, and to name what is condemned",
        "T4 holds": "T4 locks the rows it is going to name",
        "T9 needs live names": "only an unmarked snapshot keeps for T9",
        "T9 sees pins": "what only a pin keeps is not gone",
    }

    def __init__(
        self, without: Iterable[str] = (), *, claims: int = 2, uploader: bool = True, both: bool = True
    ) -> None:
        super().__init__(without)
        self.claims = claims
        self.uploader = uploader
        self.both = both

    def starts(self) -> Iterable[State]:
        images = frozenset({"x0", "y0"})
        names = frozenset({(HEAD, "x0"), (OTHER, "x0"), (BASE, "y0")})
        session = "open" if self.uploader else "expired"
        return [
            State(
                names, (None, ""), "waiting", 0, frozenset(), "", 0, session, ("ask", ""), frozenset(), frozenset(),
                images, NOTHING, images, NOTHING, NOTHING, (None, None, None), frozenset(), frozenset(), frozenset(),
            )
        ]  # fmt: skip

    # --- The two questions, and the promises ----------------------------------------------------------------------

    def is_marked(self, s: State, snapshot: int) -> bool:
        return s.mark[0] == snapshot

    def is_named(self, s: State, blob: str) -> bool:
        if blob == s.mask:
            return not self.is_marked(s, HEAD)
        return any(b == blob and not self.is_marked(s, snapshot) for snapshot, b in s.names)

    def is_referenced(self, s: State, blob: str) -> bool:
        return blob == s.mask or any(b == blob for _, b in s.names)

    def is_pinned(self, s: State, blob: str) -> bool:
        return any(b == blob for b, _ in s.pins)

    def at_rest(self, s: State) -> bool:
        busy = s.workers or s.row in ("waiting", "running") or s.condemned or s.candidates
        quiet = s.session != "open" and all(how == "landed" for _, how in s.puts)
        return quiet and not busy and "open" not in s.deletions

    def broken(self, s: State) -> str | None:
        for snapshot, blob in s.names:
            if blob not in s.live or blob not in s.store:
                return f"I1 the {SNAPSHOTS[snapshot]} names {blob}, which is not there"
        if s.mask and s.mask not in s.live & s.store:
            return "I1 the comparison names a mask that is not there"
        if s.store - s.live - s.announced - s.condemned:
            return "I4 the store has an object that no row knows"
        for number, image in enumerate(WITHDRAWALS):
            if s.deletions[number] is not None and s.mask and not self.is_marked(s, HEAD):
                return f"I8 a mask of image {image} is read after its withdrawal was answered"
            if s.deletions[number] == "complete" and (left := self._made(s)):
                return f"I12 the withdrawal of {image} is complete, and {min(left)}, made of it, is in the store"
        for number, state in enumerate(s.deletions):
            if state == "complete" and (left := self._left(s, number)):
                others = {b for d, b in s.owed if s.deletions[d] == "open"} | {b for _, b in s.names}
                if left - others:
                    return f"I12 {_which(number)} is complete, {min(left)} stands and nobody answers for it"
        if self.at_rest(s):
            wanted = frozenset(blob for _, blob in s.names) | frozenset({s.mask} - {""})
            if s.store != wanted or s.announced:
                return f"I3 at rest {', '.join(sorted((s.store ^ wanted) | s.announced))} is stored and not named"
        return None

    def _made(self, s: State) -> set[str]:
        """Masks in the store that no open deletion of their snapshot answers for."""
        answered = {b for d, b in s.owed if d == DELETION and s.deletions[d] == "open"}
        return {b for b in s.store if b.startswith("m")} - answered

    def _left(self, s: State, number: int) -> set[str]:
        return {b for d, b in s.owed if d == number and b in s.store and not self.is_named(s, b)}

    # --- Everything that may happen -------------------------------------------------------------------------------------

    def steps(self, s: State) -> Iterator[Step]:
        yield from self._withdraw(s)
        yield from self._delete(s)
        yield from self._uploads(s)
        yield from self._works(s)
        yield from self._tidies(s)
        for blob, how in s.puts:
            rest = s.puts - {(blob, how)}
            if how == "unsent":
                yield Step(f"the put of {blob} is sent", s._replace(puts=rest | {(blob, "sent")}), alone=False)
            if how == "sent":
                n = s._replace(puts=rest | {(blob, "landed")}, store=s.store | {blob})
                yield Step(f"the put of {blob} lands", n)
            if how != "landed":
                yield Step(f"the deadline of {blob} passes", s._replace(puts=rest))

    def _withdraw(self, s: State) -> Iterator[Step]:
        for number, image in enumerate(WITHDRAWALS):
            if image == "y" and not self.both:
                continue
            naming = {snapshot for snapshot, blob in s.names if blob in IMAGES[image]}
            unmarked = {snapshot for snapshot in naming if not self.is_marked(s, snapshot)}
            if s.deletions[number] is None and unmarked and not self._must_wait(s):
                n = self._hidden(s, number, image, naming, unmarked)
                yield Step(f"T5a withdraws image {image}: {_list(unmarked)}, answered", n, alone=False)
            if number in s.later and s.mask:
                n = s._replace(mask="", later=s.later - {number}, candidates=s.candidates | {s.mask})
                yield Step(f"the withdrawal of {image} empties its masks", n)

    def _must_wait(self, s: State) -> bool:
        """Somebody holds a lock the withdrawal needs."""
        committing = s.client[0] == "commit" and "project lock" not in self.without
        # A claim is a transaction: it locks the row, reads the images, commits.
        claiming = any(doing == "claim" for doing, _, _ in s.workers)
        skips = "lock comparisons" in self.without and s.row == "waiting"
        return committing or (claiming and not skips)

    def _hidden(self, s: State, number: int, image: str, naming: set[int], unmarked: set[int]) -> State:
        same_digest = IMAGES[image]
        emptied = naming if "marked left alone" in self.without else unmarked
        left = frozenset((snapshot, b) for snapshot, b in s.names if snapshot not in emptied or b not in same_digest)
        gone = {b for _, b in s.names - left}
        let_go = {b for b in gone if "release shared" not in self.without or not any(n == b for _, n in left)}
        let_go |= NOTHING if "same digest" in self.without else s.condemned & same_digest
        owed = gone | s.condemned & same_digest
        n = s._replace(names=left, deletions=put(s.deletions, number, "open"))
        enqueued = NOTHING if "enqueue" in self.without else frozenset(gone)
        n = n._replace(candidates=s.candidates | enqueued)
        compared = naming if "masks of marked" not in self.without else unmarked
        side = HEAD if image == "x" else BASE
        if side in naming:
            owed |= {b for b in s.live | s.condemned | s.announced if b.startswith("m")}
        if side in compared:
            n, masks = self._compared(n, number)
            let_go |= masks
        return n._replace(
            released=s.released | {(number, b) for b in let_go}, owed=s.owed | {(number, b) for b in owed}
        )

    def _compared(self, s: State, number: int) -> tuple[State, frozenset[str]]:
        """What the withdrawal does to the comparison; and the masks it releases."""
        let_go = frozenset({s.mask} - {""})
        pending = frozenset(b for b in s.announced if b.startswith("m"))
        if "made of" not in self.without:
            let_go |= frozenset(b for b in s.live | s.condemned if b.startswith("m") and b != s.mask)
        if s.row == "running" and "reset" not in self.without:
            s = s._replace(row="waiting")
        if "condemn announced" not in self.without:
            let_go |= pending
            if "finished too" in self.without and s.row in ("done", "failed"):
                pending = NOTHING
            s = s._replace(announced=s.announced - pending, condemned=s.condemned | pending)
        if "masks at once" in self.without and s.mask:
            return s._replace(later=s.later | {number}), let_go
        enqueued = NOTHING if "enqueue" in self.without else frozenset({s.mask} - {""})
        return s._replace(mask="", candidates=s.candidates | enqueued), let_go

    def _delete(self, s: State) -> Iterator[Step]:
        target, how = s.mark
        if target is None:
            for snapshot in (HEAD, OTHER):
                if any(a == snapshot for a, _ in s.names) or s.row:
                    owed = {(DELETION, b) for a, b in s.names if a == snapshot}
                    n = s._replace(mark=(snapshot, "marked"), deletions=put(s.deletions, DELETION, "open"))
                    n = n._replace(owed=s.owed | owed)
                    yield Step(f"T5a deletion marks the {SNAPSHOTS[snapshot]}, answered", n, alone=False)
        elif how == "marked" and not any(doing == "claim" for doing, _, _ in s.workers):
            named = {b for a, b in s.names if a == target}
            let_go = named | {b for b in s.condemned if b in IMAGES["x"] and named}
            n = s._replace(names=frozenset(p for p in s.names if p[0] != target), mark=(target, "released"))
            n = n._replace(candidates=s.candidates | named)
            if target == HEAD:
                masks = frozenset(b for b in s.live | s.condemned | s.announced if b.startswith("m"))
                let_go |= masks
                n = n._replace(
                    row=None,
                    mask="",
                    candidates=n.candidates | ({s.mask} - {""}),
                    announced=s.announced - masks,
                    condemned=s.condemned | (s.announced & masks),
                )
            pairs = {(DELETION, b) for b in let_go}
            yield Step(
                f"T5b deletion releases the {SNAPSHOTS[target]}",
                n._replace(released=s.released | pairs, owed=s.owed | pairs),
            )

    # --- The uploader ---------------------------------------------------------------------------------------------------

    def _uploads(self, s: State) -> Iterator[Step]:
        doing, blob = s.client
        is_open = s.session == "open"
        if is_open and doing != "commit":
            pins = {b for b, _ in s.pins}
            mine = s.announced & IMAGES["x"]
            n = s._replace(session="expired", pins=frozenset(), candidates=s.candidates | pins)
            n = n._replace(announced=s.announced - mine, condemned=s.condemned | mine, client=("stop", ""))
            yield Step("T8 the session expires", n, alone=False)
        if not is_open:
            return
        here = next((b for b in s.live if b in IMAGES["x"]), None)
        if doing == "ask" and here and self.is_named(s, here):
            n = s._replace(client=("create", here), pins=s.pins | {(here, "told")})
            yield Step(f"T1 the uploader asks: {here} is here, pinned", n, alone=False)
            yield Step(f"T4 begins, naming {here} from memory", s._replace(client=("commit", here)), alone=False)
        elif doing == "ask" and "x1" not in s.live | s.condemned | s.announced:
            yield self._announced(s)
        elif doing == "wait" and (blob, "landed") in s.puts:
            n = s._replace(puts=s.puts - {(blob, "landed")}, announced=s.announced - {blob})
            if here:
                n = n._replace(condemned=s.condemned | {blob}, pins=s.pins | {(here, "stored")})
                yield Step(
                    f"T3 {blob} lost to {here}, which is pinned", n._replace(client=("create", here)), alone=False
                )
            else:
                n = n._replace(live=s.live | {blob}, pins=s.pins | {(blob, "stored")}, client=("create", blob))
                yield Step(f"T3 {blob} is live, pinned", n, alone=False)
        elif doing == "create":
            if here and (self.is_pinned(s, here) or self.is_named(s, here)):
                yield Step(f"T4 begins, naming {here}", s._replace(client=("commit", here)), alone=False)
            else:
                wrong = f"I5 the uploader was promised {blob}, its create is refused"
                yield Step("T4 is refused: no such image", s._replace(client=("stop", "")), wrong, alone=False)
        elif doing == "commit":
            yield self._committed(s, blob)
        if doing == "ask" and here and "x1" not in s.live | s.condemned | s.announced and self.is_named(s, here):
            # Somebody asked before the image was withdrawn and uploads anyway: the same bytes under another key.
            yield self._announced(s)

    def _announced(self, s: State) -> Step:
        n = s._replace(client=("wait", "x1"), announced=s.announced | {"x1"}, puts=s.puts | {("x1", "unsent")})
        return Step("T2 the uploader announces x1", n, alone=False)

    def _committed(self, s: State, blob: str) -> Step:
        if blob not in s.live and "foreign key" not in self.without:
            return Step("T4 is refused by the foreign key", s._replace(client=("stop", "")), alone=False)
        unseen = not self.is_pinned(s, blob) and not self.is_named(s, blob) and s.deletions[0] is not None
        wrong = f"I8 the new snapshot names {blob}, withdrawn while it was being committed" if unseen else None
        pins = {b for b, _ in s.pins}
        n = s._replace(names=s.names | {(NEW, blob)}, session="committed", client=("stop", ""), pins=frozenset())
        n = n._replace(candidates=s.candidates | pins)
        return Step(f"T4 commits the new snapshot, naming {blob}", n, wrong, alone=False)

    # --- The comparison ---------------------------------------------------------------------------------------------

    def _works(self, s: State) -> Iterator[Step]:
        unmarked = not self.is_marked(s, HEAD)
        claiming = any(doing == "claim" for doing, _, _ in s.workers)
        if (
            s.row in ("waiting", "running")
            and unmarked
            and len(s.workers) < 2
            and s.claim < self.claims
            and not claiming
        ):
            sides = {snapshot for snapshot, b in s.names if b in IMAGES["x"] | IMAGES["y"]}
            read = "both" if {HEAD, BASE} <= sides else "not both"
            n = s._replace(workers=s.workers | {("claim", s.claim + 1, read)})
            yield Step(f"a claim locks the comparison and reads its images: {read} are there", n, alone=False)
        if s.row in ("waiting", "running") and s.claim >= self.claims and not claiming:
            pending = frozenset(b for b in s.announced if b.startswith("m"))
            pending = NOTHING if "next run condemns" in self.without else pending
            n = s._replace(row="failed", announced=s.announced - pending, condemned=s.condemned | pending)
            yield Step("the comparison is failed after its last attempt", n)
        for worker in s.workers:
            yield from self._worker(s, *worker)

    def _worker(self, s: State, doing: str, claim: int, mask: str) -> Iterator[Step]:
        stopped = s._replace(workers=s.workers - {(doing, claim, mask)})
        mine = s.row == "running" and (claim == s.claim or "claim counts" in self.without)
        owned = mine and not self.is_marked(s, HEAD)
        match doing:
            case "claim":
                yield self._claimed(s, stopped, claim, mask)
            case "compare" if not owned:
                yield Step("the worker may not announce: the comparison is not its any more", stopped, alone=False)
            case "compare" if s.masks < 2:
                new = f"m{s.masks}"
                n = stopped._replace(
                    workers=stopped.workers | {("store", claim, new)},
                    masks=s.masks + 1,
                    announced=s.announced | {new},
                    puts=s.puts | {(new, "unsent")},
                )
                yield Step(f"the worker announces mask {new}", n, alone=False)
            case "finish" if owned:
                n = stopped._replace(row="done")
                yield Step("the worker commits the comparison: an image is withdrawn, no mask", n, alone=False)
            case "store" if (mask, "landed") in s.puts:
                noticed = stopped._replace(puts=s.puts - {(mask, "landed")})
                if owned and mask in s.announced:
                    n = noticed._replace(row="done", mask=mask, live=s.live | {mask})
                    n = n._replace(announced=s.announced - {mask})
                    yield Step(f"the worker commits the comparison, naming mask {mask}", n, alone=False)
                else:
                    yield Step("the worker may not commit: the comparison is not its any more", noticed, alone=False)
            case _:
                pass
        if doing != "claim":
            yield Step("a worker dies", stopped, alone=False)

    def _claimed(self, s: State, stopped: State, claim: int, read: str) -> Step:
        """The second half of the claim's transaction."""
        if s.row not in ("waiting", "running") or s.claim >= claim:
            return Step("the claim finds nothing to do", stopped, alone=False)
        doing = "compare" if read == "both" else "finish"
        pending = frozenset(b for b in s.announced if b.startswith("m"))
        pending = NOTHING if "next run condemns" in self.without else pending
        n = stopped._replace(row="running", claim=claim, workers=stopped.workers | {(doing, claim, "")})
        n = n._replace(announced=s.announced - pending, condemned=s.condemned | pending)
        return Step("the claim is committed", n, alone=False)

    # --- Tidying --------------------------------------------------------------------------------------------------------

    def _tidies(self, s: State) -> Iterator[Step]:
        for blob in s.candidates:
            n = s._replace(candidates=s.candidates - {blob})
            if blob not in s.live or self.is_referenced(s, blob) or self.is_pinned(s, blob):
                yield Step(f"T6 settles {blob}", n)
            elif s.client != ("commit", blob) or "T4 holds" in self.without:
                yield Step(f"T6 condemns {blob}", n._replace(live=s.live - {blob}, condemned=s.condemned | {blob}))
        for blob in s.condemned:
            if (blob, "unsent") in s.puts or (blob, "sent") in s.puts:
                if blob in s.store:
                    yield Step(f"T7 removes {blob}, not finally", s._replace(store=s.store - {blob}))
            else:
                n = s._replace(store=s.store - {blob}, condemned=s.condemned - {blob})
                yield Step(f"T7 removes {blob}", n)
        for number, state in enumerate(s.deletions):
            if state != "open" or (number == DELETION and s.mark[1] == "marked") or number in s.later:
                continue
            if all(self._is_done(s, b) for d, b in s.released if d == number):
                n = s._replace(deletions=put(s.deletions, number, "complete"))
                left = self._left(s, number)
                wrong = f"I12 {_which(number)} is declared complete while {min(left)} stands" if left else None
                yield Step(f"T9 closes {_which(number)}", n, wrong)

    def _is_done(self, s: State, blob: str) -> bool:
        kept = self.is_referenced(s, blob) if "T9 needs live names" in self.without else self.is_named(s, blob)
        if "T9 sees pins" in self.without:
            kept = kept or self.is_pinned(s, blob)
        return blob not in s.live | s.announced | s.condemned or kept


def _which(number: int) -> str:
    return "the deletion" if number == DELETION else f"the withdrawal of {WITHDRAWALS[number]}"


def _list(snapshots: set[int]) -> str:
    return " and ".join(SNAPSHOTS[snapshot] for snapshot in sorted(snapshots))
