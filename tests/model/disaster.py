"""The database is lost and opened again, from an older backup or from nothing, beside a store that went on.

Two snapshots share an image; each has its manifest and its deletion. Snapshot 0 is there from the beginning, perhaps with
what a failed attempt of its create left; snapshot 1 is about to be committed. Requests of the old life may still travel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, NamedTuple

from model.search import Model, Step, put

IMAGE, FIRST, TWIN, SECOND = "image", "manifest 0", "manifest 0 of a failed attempt", "manifest 1"
OWNER = {FIRST: 0, TWIN: 0, SECOND: 1}
NOTHING: frozenset[str] = frozenset()
NOBODY: frozenset[int] = frozenset()


class Database(NamedTuple):
    """What is lost with the database, and what a backup keeps."""

    epoch: int
    issued: int  # numbers issued in this epoch
    snapshots: tuple[str, ...]  # none, stored (its manifest, before T4), live, marked, released
    rows: frozenset[str]
    condemned: frozenset[str]
    released: frozenset[tuple[int, str]]  # deletion, object
    deletions: tuple[str | None, ...]  # open, complete
    journaled: frozenset[int]  # deletions it knows to be in the journal
    reopened: frozenset[int]  # deletions found in the journal by a restart
    adopted: frozenset[str]  # tombstones of objects that nothing explained


class State(NamedTuple):
    database: Database | None
    backup: Database | None
    losses: int
    epoch: int  # as the store's own installation object says
    store: frozenset[str]
    journal: frozenset[int]
    travelling: frozenset[tuple[str, str | int, str]]  # journal or removal, what, sent or done
    answered: tuple[bool, ...]  # per deletion: answered with journaled_at set
    committed: frozenset[int]  # snapshots that ever were
    owed: frozenset[tuple[int, str]]  # what each deletion let go of, whatever the database remembers
    numbers: frozenset[tuple[int, int]]  # every number ever issued: epoch, place


class Disaster(Model):
    GUARDS: ClassVar[dict[str, str]] = {
        "journal before answer": "journaled_at is set once the store has the entry",
        "T7 waits": "T7 removes nothing that a deletion released which the journal lacks",
        "T7 waits for all": "T7 waits for every deletion that released the object, not for one of them",
        "replay": "the journal is replayed before the service opens",
        "wait": "the store is listed when no request of the old life can land any more",
        "whole only": "a manifest comes back only if the store has its images",
        "one artifact": "every attempt of a create writes for the same artifact",
        "newer manifests": "a manifest that the backup does not know comes back",
        "adopt": "an object that nothing explains becomes a tombstone",
        "adopted delay": "a deletion from the journal waits for the adopted tombstones of its project",
        "sessions end": "sessions of the backup do not go on",
        "pending judged": "what they had announced is judged by what the store holds, not condemned",
        "epoch": "every restart raises the epoch above the one the store knows",
    }

    def __init__(
        self,
        without: Iterable[str] = (),
        *,
        losses: int = 1,
        backups: bool = False,
        numbers: bool = False,
        twin: bool = True,
    ) -> None:
        super().__init__(without)
        self.numbers = numbers
        self.twins = (NOTHING, frozenset({TWIN})) if twin else (NOTHING,)
        self.removals = 2 if twin else 1
        self.losses = losses
        self.backups = backups

    def starts(self) -> Iterable[State]:
        for twin in self.twins:
            objects = frozenset({IMAGE, FIRST, SECOND})
            database = Database(
                1, 1, ("live", "stored"), objects, twin, frozenset(), (None, None), NOBODY, NOBODY, NOTHING
            )
            yield State(
                database, None, 0, 1, objects | twin, NOBODY, frozenset(), (False, False), frozenset({0}), frozenset(),
                frozenset({(1, 1)}),
            )  # fmt: skip

    # --- Promises -----------------------------------------------------------------------------------------------------

    def is_named(self, db: Database, item: str) -> bool:
        return "live" in db.snapshots if item == IMAGE else db.snapshots[OWNER[item]] == "live" and item in db.rows

    def is_referenced(self, db: Database, item: str) -> bool:
        if item == IMAGE:
            return any(how in ("live", "marked", "stored") for how in db.snapshots)
        return db.snapshots[OWNER[item]] in ("live", "marked", "stored")

    def at_rest(self, s: State) -> bool:
        db = s.database
        if db is None or s.travelling or db.condemned or "open" in db.deletions:
            return False
        return not {"marked", "stored"} & set(db.snapshots) and all(self.is_referenced(db, item) for item in db.rows)

    def broken(self, s: State) -> str | None:
        db = s.database
        if db is None:
            return None
        for snapshot, how in enumerate(db.snapshots):
            if how != "live":
                continue
            manifest = any(OWNER.get(item) == snapshot for item in db.rows & s.store)
            if not manifest or IMAGE not in s.store:
                return f"I1 snapshot {snapshot} is live, its image or manifest is gone"
            if s.answered[snapshot]:
                return f"I13 snapshot {snapshot} is back; its deletion was answered as journaled"
            if db.deletions[snapshot] == "complete":
                return f"I13 snapshot {snapshot} is live, its deletion complete"
        if s.store - db.rows - db.condemned:
            return f"I4 the store has {min(s.store - db.rows - db.condemned)}, which no row knows"
        if self.at_rest(s) and s.store != db.rows:
            return f"I3 at rest {', '.join(sorted(s.store ^ db.rows))} has a row or is stored, not both"
        return None

    # --- Everything that may happen -------------------------------------------------------------------------------------

    def steps(self, s: State) -> Iterator[Step]:
        yield from self._requests(s)
        db = s.database
        if db is None:
            travelling = any(how == "sent" for _, _, how in s.travelling)
            if not travelling or "wait" in self.without:
                yield self._reopened(s, None, "rebuilt from the store alone")
                if s.backup is not None:
                    yield self._reopened(s, s.backup, "restored from the backup")
            return
        yield from self._clients(s, db)
        for deletion in (0, 1):
            yield from self._deletes(s, db, deletion)
        yield from self._tidies(s, db)
        if self.backups and s.backup is None and s.losses == 0:
            yield Step("a backup is made", s._replace(backup=db), alone=False)
        if s.losses < self.losses:
            left = frozenset(request for request in s.travelling if request[2] == "sent")
            yield Step(
                "the database is lost", s._replace(database=None, losses=s.losses + 1, travelling=left), alone=False
            )

    def _clients(self, s: State, db: Database) -> Iterator[Step]:
        first, second = db.snapshots
        if second == "stored":
            number = (db.epoch, db.issued + 1)
            n = db._replace(snapshots=(first, "live"), issued=number[1])
            after = s._replace(database=n, committed=s.committed | {1}, numbers=s.numbers | {number})
            yield Step("T4 commits snapshot 1", after, self._twice(s, number), alone=False)
            n = db._replace(snapshots=(first, "none"), rows=db.rows - {SECOND}, condemned=db.condemned | {SECOND})
            yield Step("T8 the session of snapshot 1 expires", s._replace(database=n), alone=False)
        if self.numbers and s.losses and db.issued < 2:
            number = (db.epoch, db.issued + 1)
            after = s._replace(database=db._replace(issued=number[1]), numbers=s.numbers | {number})
            yield Step("somebody else's snapshot gets the next number", after, self._twice(s, number), alone=False)

    def _twice(self, s: State, number: tuple[int, int]) -> str | None:
        return f"I6 number {number[1]} of epoch {number[0]} is issued twice" if number in s.numbers else None

    def _deletes(self, s: State, db: Database, deletion: int) -> Iterator[Step]:
        how = db.snapshots[deletion]
        if how == "live" and db.deletions[deletion] is None:
            n = db._replace(
                snapshots=put(db.snapshots, deletion, "marked"), deletions=put(db.deletions, deletion, "open")
            )
            yield Step(f"T5a marks snapshot {deletion}", s._replace(database=n), alone=False)
        if db.deletions[deletion] != "open":
            return
        sent = any(request[:2] == ("journal", deletion) for request in s.travelling)
        if deletion not in db.journaled and not sent:
            n = s._replace(travelling=s.travelling | {("journal", deletion, "sent")})
            early = "journal before answer" in self.without
            n = n._replace(answered=put(s.answered, deletion, True)) if early else n
            yield Step(f"the journal entry of deletion {deletion} is sent" + ", and answered" * early, n)
        if how == "marked":
            mine = {item for item in db.rows | db.condemned if OWNER.get(item) == deletion} | {IMAGE}
            pairs = {(deletion, item) for item in mine}
            n = db._replace(snapshots=put(db.snapshots, deletion, "released"), released=db.released | pairs)
            yield Step(f"T5b releases snapshot {deletion}", s._replace(database=n, owed=s.owed | pairs))
        if how == "released" and self._may_close(db, deletion):
            n = s._replace(database=db._replace(deletions=put(db.deletions, deletion, "complete")))
            yield Step(f"T9 closes deletion {deletion}", n, self._standing(s, db, deletion))

    def _may_close(self, db: Database, deletion: int) -> bool:
        if deletion not in db.journaled:
            return False
        if deletion in db.reopened and db.adopted and "adopted delay" not in self.without:
            return False
        there = db.rows | db.condemned
        return all(item not in there or self.is_named(db, item) for d, item in db.released if d == deletion)

    def _standing(self, s: State, db: Database, deletion: int) -> str | None:
        left = {item for d, item in s.owed if d == deletion and item in s.store and not self.is_named(db, item)}
        if deletion in db.reopened:
            # A rebuilt database has forgotten what was shared; whoever deletes the other snapshot answers for it.
            others = {item for d, item in s.owed if d != deletion and db.deletions[d] == "open"}
            left -= others | ({IMAGE} if db.snapshots[1 - deletion] == "marked" else set())
        return f"I12 deletion {deletion} is declared complete while {min(left)} stands" if left else None

    def _tidies(self, s: State, db: Database) -> Iterator[Step]:
        for item in db.rows:
            if not self.is_referenced(db, item):
                n = db._replace(rows=db.rows - {item}, condemned=db.condemned | {item})
                yield Step(f"T6 condemns {item}", s._replace(database=n))
        for item in db.condemned:
            who = {deletion for deletion, released in db.released if released == item}
            may = who <= db.journaled or "T7 waits" in self.without
            may = may or ("T7 waits for all" in self.without and bool(who & db.journaled))
            sent = {request[1] for request in s.travelling if request[0] == "removal"}
            if may and item not in sent and len(sent) < self.removals:
                n = s._replace(travelling=s.travelling | {("removal", item, "sent")})
                yield Step(f"T7 sends the removal of {item}", n)

    def _requests(self, s: State) -> Iterator[Step]:
        db = s.database
        for what, item, how in s.travelling:
            n = s._replace(travelling=s.travelling - {(what, item, how)})
            if how == "sent":
                done = n if db is None else n._replace(travelling=n.travelling | {(what, item, "done")})
                if isinstance(item, int):
                    yield Step(f"the journal entry of deletion {item} lands", done._replace(journal=s.journal | {item}))
                else:
                    yield Step(f"the removal of {item} lands", done._replace(store=s.store - {item}))
            elif db is not None and isinstance(item, int):
                noted = db._replace(journaled=db.journaled | {item})
                # Answered at the earliest moment, which promises most.
                answered = put(s.answered, item, True)
                yield Step(f"deletion {item} is journaled, and answered", n._replace(database=noted, answered=answered))
            elif db is not None and isinstance(item, str):
                closed = db._replace(condemned=db.condemned - {item}, adopted=db.adopted - {item})
                yield Step(f"T7 is answered and closes the tombstone of {item}", n._replace(database=closed))
            yield Step(f"the {what} of {item} is lost or not answered", n)

    # --- Opening again ------------------------------------------------------------------------------------------------

    def _reopened(self, s: State, backup: Database | None, how: str) -> Step:
        """Replay the journal, end what was open, bring back what the store describes, adopt the rest."""
        nothing = Database(1, 0, ("none", "none"), NOTHING, NOTHING, frozenset(), (None, None), NOBODY, NOBODY, NOTHING)
        old = backup or nothing
        epoch = old.epoch if "epoch" in self.without else s.epoch + 1
        journal = NOBODY if "replay" in self.without else s.journal
        snapshots, deletions = list(old.snapshots), list(old.deletions)
        rows, condemned = set(old.rows), set(old.condemned)
        for snapshot in (0, 1):
            if snapshots[snapshot] == "stored" and "sessions end" not in self.without:
                # Whether it was committed after the backup, only its manifest can say.
                pending = {item for item in rows if OWNER.get(item) == snapshot}
                snapshots[snapshot] = "none"
                rows -= pending
                condemned |= pending if "pending judged" in self.without else set()
            if snapshot in journal:
                deletions[snapshot] = deletions[snapshot] or "open"
                if snapshots[snapshot] == "live":
                    snapshots[snapshot] = "marked"
        if backup is None or "newer manifests" not in self.without:
            self._bring_back(s, journal, snapshots, rows, condemned)
        for snapshot in journal:
            if snapshots[snapshot] == "none":
                snapshots[snapshot] = "released"
        unknown = NOTHING if "adopt" in self.without else frozenset(s.store - rows - condemned)
        wrong = None
        for snapshot in s.committed:
            whole = IMAGE in s.store and any(OWNER[item] == snapshot for item in s.store & OWNER.keys())
            lost = snapshots[snapshot] == "none" or (snapshots[snapshot] == "live" and not whole)
            if lost and snapshot not in s.journal:
                wrong = f"I13 snapshot {snapshot} is lost or damaged, and no journal entry says it was deleted"
        database = Database(
            epoch, old.issued, tuple(snapshots), frozenset(rows), frozenset(condemned) | unknown, old.released,
            tuple(deletions), old.journaled | journal, old.reopened | frozenset(d for d in journal if deletions[d] == "open"),
            unknown,
        )  # fmt: skip
        known = frozenset((d, item) for d, item in s.owed if deletions[d] is not None)
        n = s._replace(database=database, epoch=max(epoch, s.epoch), owed=known)
        return Step(f"the database is {how}", n, wrong)

    def _bring_back(
        self, s: State, journal: frozenset[int], snapshots: list[str], rows: set[str], condemned: set[str]
    ) -> None:
        for item in sorted(s.store & OWNER.keys() - rows - condemned):
            snapshot = OWNER[item]
            named = snapshot in journal and not ("one artifact" in self.without and item == TWIN)
            whole = IMAGE in s.store or "whole only" in self.without
            if not named and whole and snapshots[snapshot] == "none":
                snapshots[snapshot] = "live"
                rows |= {item, IMAGE}
                condemned.discard(IMAGE)
