"""One digest: who stores it, promises it, names it, lets go of it and removes it, all at once.

Two uploaders with a session each, the snapshots they create, two deletions (or one over both), any number of workers.
A key is one upload. Removals are sent by anybody, twice, late, and answered or not. One uploader may stop at any point.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, NamedTuple

from model.search import Model, Step, put

NOTHING: frozenset[int] = frozenset()
UPLOADERS = (0, 1)
PASSER_BY = 2


class State(NamedTuple):
    sessions: tuple[str, ...]  # open, committed, expired, cancelled; of the passer-by also none
    clients: tuple[tuple[str, int], ...]  # what each uploader does next, and with which key
    keys: int  # how many were issued
    puts: frozenset[
        tuple[int, str]
    ]  # announced and unsent, sent, or landed and not yet noticed; late: past its deadline
    store: frozenset[int]
    announced: frozenset[tuple[int, int]]  # key, session
    live: frozenset[int]
    condemned: frozenset[int]
    pins: frozenset[tuple[int, int, str]]  # session, key, told or stored
    named: frozenset[tuple[int, int]]  # snapshot, key: the foreign keys, those of marked snapshots too
    marks: tuple[int | str | None, ...]  # per snapshot: which deletion marked it, or released
    released: frozenset[tuple[int, int]]  # deletion, key
    deletions: tuple[str | None, ...]  # open, complete
    candidates: frozenset[int]
    removals: tuple[tuple[int, bool, str], ...]  # key, can no put land after it?, sent or done
    owed: frozenset[tuple[int, int]]  # what each deletion must answer for, whatever its release rows say
    looked: frozenset[tuple[str, int]]  # what somebody read before and will act on; only without guards


class Blobs(Model):
    GUARDS: ClassVar[dict[str, str]] = {
        "row before bytes": "the row is written before the bytes",
        "own key": "a storage key is used for one upload",
        "put deadline": "a put begins before its deadline or not at all",
        "fence": "a removal closes a tombstone only if no put can land after it",
        "fence when sent": "whether a put can still land is asked when the removal is sent, not when it is answered",
        "condemn before remove": "only tombstones are removed",
        "second look": "T6 looks again under the lock",
        "foreign key": "the database refuses to condemn what is named or pinned, and to name what is condemned",
        "pins": "what a session is told or has stored is pinned",
        "T6 sees pins": "T6 spares what is pinned",
        "T6 sees marked": "T6 spares what a marked snapshot still names",
        "loser pinned": "T3 pins the winner to the session whose upload lost",
        "session open": "T4 needs its session open",
        "refusals count": "a refused create is a broken promise",
        "enqueue on release": "T5b enqueues what it lets go of",
        "enqueue on end": "the end of a session enqueues what it pinned",
        "memory": "a repeated create is answered with the snapshot it made, and makes none again",
        "memory answers": "a repeated create is answered although its session is over",
        "memory first": "a repeated create asks the memory before it looks for a session with the same images",
        "reads skip marked": "no page or API reads a marked snapshot",
        "reads need a name": "a blob is read because a live snapshot names it or the own session stored it",
        "told is no read": "what a session was only told it may not read",
        "T1 needs a name": "T1 promises only what a live snapshot names",
        "T4 needs a name": "T4 names only what its session pinned or a live snapshot names",
        "T9 after release": "T9 waits until nothing marked is left",
        "T9 any tombstone": "T9 asks for every tombstone of what it released, whoever condemned it",
        "T9 sees tombstones": "condemned is not gone",
        "T9 needs live names": "only an unmarked snapshot keeps for T9",
        "T9 sees pins": "what only a pin keeps is not gone",
        "T9 lets named go": "what a live snapshot names does not delay T9, pinned or not",
        "T9 one statement": "T9 judges all of it in one statement",
        "release shared": "T5b releases what others name as well",
        "release same digest": "T5b releases standing tombstones of the same digest",
        "urgent looks on": "T6 cancels the sessions an urgent deletion waits for whenever it meets one",
        "urgent stays queued": "a candidate that an urgent deletion wants is not settled by a pin",
    }

    def __init__(
        self, without: Iterable[str] = (), *, keys: int = 2, passer_by: bool = False, urgent: bool = False
    ) -> None:
        super().__init__(without)
        self.keys = keys
        self.passer_by = passer_by
        self.urgent = urgent

    def starts(self) -> Iterable[State]:
        passer_by = "open" if self.passer_by else "none"
        return [
            State(
                ("open", "open", passer_by), (("ask", -1), ("ask", -1)), 0, frozenset(), NOTHING, frozenset(), NOTHING,
                NOTHING, frozenset(), frozenset(), (None, None), frozenset(), (None, None), NOTHING, (), frozenset(),
                frozenset(),
            )
        ]  # fmt: skip

    # --- The two questions, and the promises ----------------------------------------------------------------------

    def at(self, key: int) -> int:
        """Where a key's bytes are in the store."""
        return 0 if "own key" in self.without else key

    def is_named(self, s: State, key: int) -> bool:
        return any(k == key and s.marks[snapshot] is None for snapshot, k in s.named)

    def is_referenced(self, s: State, key: int) -> bool:
        return any(k == key for _, k in s.named)

    def stored_it(self, s: State, session: int, key: int) -> bool:
        return s.sessions[session] == "open" and (session, key, "stored") in s.pins

    def answers_for(self, s: State, deletion: int) -> frozenset[int]:
        return frozenset(k for d, k in s.owed if d == deletion) | {
            k for snapshot, k in s.named if s.marks[snapshot] == deletion
        }

    def at_rest(self, s: State) -> bool:
        busy = s.announced or s.condemned or s.candidates or s.removals or any(how != "landed" for _, how in s.puts)
        return not busy and "open" not in s.sessions and "open" not in s.deletions

    def is_settled(self, s: State) -> bool | None:
        return "open" not in s.deletions if self.urgent else None

    def broken(self, s: State) -> str | None:
        return self._dangling(s) or self._unknown(s) or self._readable(s) or self._receipts(s) or self._leak(s)

    def _dangling(self, s: State) -> str | None:
        for snapshot, key in s.named:
            if key not in s.live or self.at(key) not in s.store:
                return f"I1 snapshot {snapshot} names key {key}, which is not there"
            if s.marks[snapshot] == "released":
                return f"I8 snapshot {snapshot} is back after its deletion was answered"
        for session, key, _ in s.pins:
            if s.sessions[session] == "open" and key in s.live and self.at(key) not in s.store:
                return f"I2 session {session} was promised key {key}, which is not there"
        return None

    def _unknown(self, s: State) -> str | None:
        known = {self.at(key) for key in s.live | s.condemned} | {self.at(key) for key, _ in s.announced}
        return "I4 the store has an object that no row knows" if s.store - known else None

    def _readable(self, s: State) -> str | None:
        if "reads skip marked" in self.without:
            for snapshot, _ in s.named:
                if s.marks[snapshot] is not None:
                    return f"I8 snapshot {snapshot} is read after its deletion was answered"
        for session in UPLOADERS:
            for key in s.live:
                may = self.is_named(s, key) or self.stored_it(s, session, key)
                if not may and self._reads(s, session, key):
                    return f"I8 session {session} reads key {key}, which no live snapshot names and it never stored"
        return None

    def _reads(self, s: State, session: int, key: int) -> bool:
        if "reads need a name" in self.without:
            return True
        pinned = any(p[:2] == (session, key) for p in s.pins) and s.sessions[session] == "open"
        return "told is no read" in self.without and pinned

    def _receipts(self, s: State) -> str | None:
        for deletion, state in enumerate(s.deletions):
            if state == "complete":
                # Later somebody else may answer for what was kept for a live snapshot; but somebody must.
                others = [other for other, how in enumerate(s.deletions) if how == "open"]
                for key in {k for d, k in s.owed if d == deletion}:
                    standing = self.at(key) in s.store and not self.is_named(s, key)
                    if standing and not any(key in self.answers_for(s, other) for other in others):
                        return f"I12 deletion {deletion} is complete, key {key} stands and nobody answers for it"
            elif state == "open" and deletion not in s.marks and not self._may_close(s, deletion):
                gone = s.live | s.condemned
                if all(self.is_named(s, key) or key not in gone for key in self.answers_for(s, deletion)):
                    return f"I10 deletion {deletion} has nothing left to do and may not close"
        return None

    def _leak(self, s: State) -> str | None:
        wanted = frozenset(key for _, key in s.named)
        if self.at_rest(s) and (s.live != wanted or s.store != frozenset(self.at(key) for key in wanted)):
            return f"I3 at rest {_keys(s.live)} have rows, {_keys(s.store)} are stored, {_keys(wanted)} are named"
        return None

    # --- Everything that may happen ---------------------------------------------------------------------------------

    def steps(self, s: State) -> Iterator[Step]:
        for c in UPLOADERS:
            yield from self._client(s, c)
        if s.sessions[PASSER_BY] == "open":
            yield from self._passes_by(s)
        for session, state in enumerate(s.sessions):
            if state == "open":
                ended = self._end(s, session, "expired", enqueue="enqueue on end" not in self.without)
                yield Step(f"T8 session {session} expires", ended, alone=False)
        yield from self._mark(s)
        yield from self._release(s)
        yield from self._condemn(s)
        yield from self._remove(s)
        yield from self._close(s)
        yield from self._puts(s)

    def _client(self, s: State, c: int) -> Iterator[Step]:
        doing, key = s.clients[c]
        match doing:
            case "ask":
                yield from self._ask(s, c)
            case "wait":
                yield from self._wait(s, c, key)
            case "finalise":
                yield self._finalise(s, c, key)
            case "create":
                yield self._create(s, c, key)
            case "made":
                yield from self._repeat(s, c, key)
            case _:
                pass

    def _ask(self, s: State, c: int) -> Iterator[Step]:
        if s.sessions[c] != "open":
            yield _go(s, c, "stop", f"client {c} finds its session over")
            return
        for key in s.live:
            named = self.is_named(s, key)
            if named or "T1 needs a name" in self.without:
                n = self._pin(s, c, key, "told")
                wrong = None if named else f"I8 session {c} is promised key {key}, which no live snapshot names"
                yield _go(n, c, "create", f"T1 client {c} asks: key {key} is here, pinned", key, wrong)
            if named or "T4 needs a name" in self.without:
                wrong = None if named else f"I8 snapshot {c} brings key {key} back, which its session never had"
                yield Step(
                    f"T4 client {c} creates snapshot {c} from memory", self._commit(s, c, key), wrong, alone=False
                )
            if named:
                return
        if s.keys < self.keys:
            key = s.keys
            n = s._replace(keys=key + 1, puts=s.puts | {(key, "unsent")})
            if "row before bytes" not in self.without:
                n = n._replace(announced=n.announced | {(key, c)})
            yield _go(n, c, "wait", f"T2 client {c} announces key {key}", key)

    def _wait(self, s: State, c: int, key: int) -> Iterator[Step]:
        if (key, "landed") in s.puts:
            n = s._replace(puts=s.puts - {(key, "landed")})
            yield _go(n, c, "finalise", f"the put of key {key} is answered", key)
            return
        given_up = s._replace(announced=s.announced - {(key, c)})
        if given_up != s:
            given_up = given_up._replace(condemned=s.condemned | {key})
        yield _go(given_up, c, "ask", f"client {c} gives up the put of key {key}: its row is condemned at once")

    def _finalise(self, s: State, c: int, key: int) -> Step:
        if "row before bytes" in self.without:
            if s.sessions[c] == "open" and not s.live:
                n = self._pin(s._replace(live=s.live | {key}), c, key, "stored")
                return _go(n, c, "create", f"client {c} writes the row of key {key}", key)
            return _go(s, c, "stop", f"client {c} stops")
        if s.sessions[c] != "open" or (key, c) not in s.announced:
            return _go(s, c, "ask", f"T3 client {c}: session over, key {key} is condemned")
        n = s._replace(announced=s.announced - {(key, c)})
        for winner in s.live:  # whoever names it, marked or released included
            n = n._replace(condemned=n.condemned | {key})
            if "loser pinned" not in self.without:
                n = self._pin(n, c, winner, "stored")
            return _go(n, c, "create", f"T3 client {c}: key {key} lost to key {winner} and is condemned", winner)
        n = self._pin(n._replace(live=n.live | {key}), c, key, "stored")
        return _go(n, c, "create", f"T3 client {c}: key {key} is live, pinned", key)

    def _create(self, s: State, c: int, key: int) -> Step:
        is_open = s.sessions[c] == "open"
        if not is_open and "session open" not in self.without:
            taken = s.sessions[c] == "committed"
            wrong = f"I5 the open session of client {c} was taken by somebody's repeated create" if taken else None
            return _go(s, c, "stop", f"T4 client {c} is refused: session over", broken=wrong)
        for there in s.live:
            pinned = any(p[:2] == (c, there) for p in s.pins)
            unguarded = {"pins", "T6 sees pins", "loser pinned", "session open"} & self.without
            if pinned or self.is_named(s, there) or unguarded:
                return Step(
                    f"T4 client {c} creates snapshot {c}, naming key {there}", self._commit(s, c, there), alone=False
                )
        if "foreign key" in self.without:
            return Step(f"T4 client {c} creates snapshot {c}, naming key {key}", self._commit(s, c, key), alone=False)
        wrong = f"I5 client {c} was promised key {key}, its create is refused"
        wrong = None if "refusals count" in self.without else wrong
        return _go(s, c, "ask", f"T4 client {c} is refused: no such image", broken=wrong)

    def _repeat(self, s: State, c: int, key: int) -> Iterator[Step]:
        """The answer was lost, and the same create comes again. As written nothing changes."""
        if "memory" in self.without and key in s.live:
            n = s._replace(named=s.named | {(c, key)})
            yield Step(f"client {c} repeats its create: made again", n, alone=False)
        if "memory answers" in self.without and s.marks[c] is None:
            wrong = f"I5 client {c} is refused the snapshot it has"
            yield Step(f"client {c} repeats its create: refused, session over", s, wrong, alone=False)
        other = 1 - c
        pinned = any(p[:2] == (other, key) for p in s.pins)
        if "memory first" in self.without and s.sessions[other] == "open" and pinned:
            n = self._end(s, other, "committed", enqueue=True)
            yield Step(f"client {c} repeats its create: taken for session {other}", n, alone=False)

    def _passes_by(self, s: State) -> Iterator[Step]:
        for key in s.live:
            if self.is_named(s, key) and (PASSER_BY, key, "told") not in s.pins:
                n = self._pin(s, PASSER_BY, key, "told")
                yield Step(f"T1 a passer-by asks: key {key} is here, pinned", n, alone=False)

    def _pin(self, s: State, session: int, key: int, how: str) -> State:
        if "pins" in self.without:
            return s._replace(candidates=s.candidates | {key}) if how == "stored" else s
        return s._replace(pins=s.pins | {(session, key, how)})

    def _commit(self, s: State, c: int, key: int) -> State:
        mine = frozenset(p for p in s.pins if p[0] == c)
        pending = frozenset(a for a in s.announced if a[1] == c)
        return s._replace(
            named=s.named | {(c, key)},
            pins=s.pins - mine,
            candidates=s.candidates | {k for _, k, _ in mine},
            announced=s.announced - pending,
            condemned=s.condemned | {k for k, _ in pending},
            sessions=put(s.sessions, c, "committed"),
            clients=put(s.clients, c, ("made", key)),
        )

    def _end(self, s: State, session: int, how: str, *, enqueue: bool) -> State:
        mine = frozenset(p for p in s.pins if p[0] == session)
        pending = frozenset(a for a in s.announced if a[1] == session)
        return s._replace(
            sessions=put(s.sessions, session, how),
            pins=s.pins - mine,
            candidates=s.candidates | ({k for _, k, _ in mine} if enqueue else NOTHING),
            announced=s.announced - pending,
            condemned=s.condemned | {k for k, _ in pending},
        )

    # --- Deletions --------------------------------------------------------------------------------------------------

    def _mark(self, s: State) -> Iterator[Step]:
        unmarked = sorted({snapshot for snapshot, _ in s.named if s.marks[snapshot] is None})
        for targets in [[one] for one in unmarked] + ([unmarked] if len(unmarked) == 2 else []):
            deletion = targets[0]
            if s.deletions[deletion] is None:
                marks = tuple(deletion if i in targets else mark for i, mark in enumerate(s.marks))
                n = s._replace(marks=marks, deletions=put(s.deletions, deletion, "open"))
                whom = " and ".join(f"snapshot {target}" for target in targets)
                yield Step(f"T5a deletion {deletion} marks {whom}, answered", n, alone=False)

    def _release(self, s: State) -> Iterator[Step]:
        for snapshot, key in s.named:
            deletion = s.marks[snapshot]
            if not isinstance(deletion, int):
                continue
            same_digest = s.condemned
            n = s._replace(
                named=s.named - {(snapshot, key)},
                marks=put(s.marks, snapshot, "released"),
                owed=s.owed | {(deletion, k) for k in same_digest | {key}},
            )
            let_go = NOTHING if "release same digest" in self.without else same_digest
            if "release shared" not in self.without or not self.is_referenced(n, key):
                let_go |= {key}
            n = n._replace(released=n.released | {(deletion, k) for k in let_go})
            if "enqueue on release" not in self.without:
                n = n._replace(candidates=n.candidates | {key})
            if self.urgent and "urgent looks on" in self.without and not self.is_referenced(n, key):
                for session in {p[0] for p in n.pins if p[1] == key}:
                    n = self._end(n, session, "cancelled", enqueue=True)
            yield Step(f"T5b deletion {deletion} releases snapshot {snapshot}", n)

    def _condemn(self, s: State) -> Iterator[Step]:
        for key in s.candidates:
            settled = s._replace(candidates=s.candidates - {key})
            if ("free", key) in s.looked:
                n = self._moved(s, key)._replace(looked=frozenset())
                yield Step(f"T6 condemns key {key} on what it read before", n)
            if key not in s.live:
                yield Step(f"T6 settles key {key}: no such row", settled)
            elif self._is_free(s, key):
                if "second look" not in self.without:
                    yield Step(f"T6 condemns key {key}", self._moved(s, key))
                elif not s.looked:
                    yield Step(f"T6 reads that key {key} is free", s._replace(looked=frozenset({("free", key)})))
                if "condemn before remove" in self.without and not s.removals:
                    yield Step(f"a removal of key {key} is sent", s._replace(removals=((key, True, "sent"),)))
            elif self._is_urgent(s, key):
                if "urgent looks on" not in self.without:
                    for session in {p[0] for p in s.pins if p[1] == key}:
                        n = self._end(s, session, "cancelled", enqueue=True)
                        yield Step(f"T6 cancels session {session}, whose pin alone keeps key {key}", n)
                if {"urgent looks on", "urgent stays queued"} & self.without:
                    yield Step(f"T6 settles key {key}: pinned", settled)
            else:
                yield Step(f"T6 settles key {key}: named or pinned", settled)

    def _moved(self, s: State, key: int) -> State:
        """The row moves from live to condemned, unless the database refuses; then the candidate stays queued."""
        held = self.is_referenced(s, key) or any(p[1] == key for p in s.pins)
        if key not in s.live or (held and "foreign key" not in self.without):
            return s
        gone = s.condemned | {key}
        return s._replace(candidates=s.candidates - {key}, live=s.live - {key}, condemned=gone)

    def _is_free(self, s: State, key: int) -> bool:
        pinned = "T6 sees pins" not in self.without and any(p[1] == key for p in s.pins)
        if "T6 sees marked" in self.without:
            return not pinned and not self.is_named(s, key)
        return not pinned and not self.is_referenced(s, key)

    def _is_urgent(self, s: State, key: int) -> bool:
        wanted = any(k == key and s.deletions[d] == "open" for d, k in s.released)
        return self.urgent and wanted and not self.is_referenced(s, key)

    def _remove(self, s: State) -> Iterator[Step]:
        """Any worker, a second one or one that slept included, may send a removal of what is or was condemned."""
        pending = {key for key, _ in s.announced}
        for key in range(s.keys):
            if len(s.removals) == 2 or key in s.live or key in pending:
                continue
            if "row before bytes" in self.without and key not in s.condemned:
                continue
            final = "fence" in self.without or not self._may_land(s, key)
            n = s._replace(removals=tuple(sorted((*s.removals, (key, final, "sent")))))
            yield Step(f"T7 sends the removal of key {key}", n)
        for removal in set(s.removals):
            key, final, how = removal
            rest = list(s.removals)
            rest.remove(removal)
            if how == "sent":
                n = s._replace(removals=tuple(sorted((*rest, (key, final, "done")))), store=s.store - {self.at(key)})
                yield Step(f"the removal of key {key} lands", n)
            elif final or ("fence when sent" in self.without and not self._may_land(s, key)):
                n = s._replace(removals=tuple(rest), condemned=s.condemned - {key})
                yield Step(f"T7 is answered and closes the tombstone of key {key}", n)
            yield Step(f"the removal of key {key} is lost or not answered", s._replace(removals=tuple(rest)))

    def _may_land(self, s: State, key: int) -> bool:
        return (key, "unsent") in s.puts or (key, "sent") in s.puts

    def _puts(self, s: State) -> Iterator[Step]:
        for key, how in s.puts:
            rest = s.puts - {(key, how)}
            if how in ("unsent", "late"):
                yield Step(
                    f"the put of key {key} is sent", s._replace(puts=rest | {(key, "sent")}), alone=how == "late"
                )
            if how == "sent":
                n = s._replace(puts=rest | {(key, "landed")}, store=s.store | {self.at(key)})
                yield Step(f"the put of key {key} lands", n)
            if how in ("unsent", "sent"):
                late = how == "unsent" and "put deadline" in self.without
                n = s._replace(puts=rest | {(key, "late")} if late else rest)
                yield Step(f"the deadline of key {key} passes", n)

    # --- T9 -----------------------------------------------------------------------------------------------------------

    def _close(self, s: State) -> Iterator[Step]:
        for deletion, state in enumerate(s.deletions):
            if state != "open":
                continue
            n = s._replace(deletions=put(s.deletions, deletion, "complete"), looked=frozenset())
            standing = [k for k in self.answers_for(s, deletion) if self.at(k) in s.store and not self.is_named(s, k)]
            wrong = f"I12 deletion {deletion} is declared complete while key {standing[0]} stands" if standing else None
            if "T9 one statement" not in self.without:
                if self._may_close(s, deletion):
                    yield Step(f"T9 closes deletion {deletion}", n, wrong)
                continue
            released = {k for d, k in s.released if d == deletion}
            if not s.looked and deletion not in s.marks and not released & s.condemned:
                first = s._replace(looked=frozenset({("T9", deletion)}))
                yield Step(f"T9 of deletion {deletion} sees no tombstone", first)
            if ("T9", deletion) in s.looked and all(k not in s.live or self.is_named(s, k) for k in released):
                yield Step(f"T9 of deletion {deletion}, a statement later, sees no row and closes it", n, wrong)

    def _may_close(self, s: State, deletion: int) -> bool:
        if deletion in s.marks and "T9 after release" not in self.without:
            return False
        return all(self._is_done(s, deletion, key) for d, key in s.released if d == deletion)

    def _is_done(self, s: State, deletion: int, key: int) -> bool:
        pinned = any(p[1] == key for p in s.pins)
        first = min(d for d, k in s.released if k == key)
        tombstone = key in s.condemned
        if "T9 sees tombstones" in self.without or ("T9 any tombstone" in self.without and deletion != first):
            tombstone = False
        kept = self.is_named(s, key)
        if "T9 needs live names" in self.without:
            kept = self.is_referenced(s, key)
        if "T9 lets named go" in self.without:
            kept = kept and not pinned
        return (key not in s.live and not tombstone) or kept or ("T9 sees pins" in self.without and pinned)


def _go(s: State, c: int, doing: str, words: str, key: int = -1, broken: str | None = None) -> Step:
    return Step(words, s._replace(clients=put(s.clients, c, (doing, key))), broken, alone=False)


def _keys(found: Iterable[int]) -> str:
    return "keys " + ", ".join(map(str, sorted(found))) if found else "no keys"
