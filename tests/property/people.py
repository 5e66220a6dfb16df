"""What people do: delete, withdraw, preview, hold; and what they must be answered."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from property.beats import Stop
from property.clients import Clients
from property.history import Action, Artifact
from property.stage import BRANCHES, IMAGES, numbers, step, stops

from snapshed.errors import Conflict, Held, NotFound, OwnerGone, PlanChanged, StoreUnavailable
from snapshed.work import deletion


class People(Clients):
    def look_at_targets(self) -> None:
        """Write down what every live snapshot would take with it."""
        found = self.scene.rows.execute(
            """
            WITH target AS (SELECT id, number FROM artifact WHERE project_id = %(project)s AND deletion_id IS NULL),
            compared AS (SELECT c.id, c.report_id, t.number
                           FROM comparison c JOIN target t ON t.id IN (c.head_id, c.base_id)),
            had AS (
                SELECT t.number::text AS whose, i.image_id AS id
                  FROM snapshot_image i JOIN target t ON t.id = i.artifact_id
                UNION SELECT t.number::text, s.manifest_id FROM snapshot s JOIN target t ON t.id = s.artifact_id
                UNION SELECT t.number::text, d.manifest_id FROM build d JOIN target t ON t.id = d.artifact_id
                UNION SELECT t.number::text, d.file_id FROM build d JOIN target t ON t.id = d.artifact_id
                UNION SELECT number::text, report_id FROM compared
                UNION SELECT c.number::text, i.mask_id FROM comparison_image i JOIN compared c ON c.id = i.comparison_id
                UNION SELECT c.number::text, b.id FROM blob b JOIN compared c ON c.id = b.comparison_id
                UNION SELECT t.number::text, b.id FROM blob b JOIN target t ON t.id = ANY(b.made_of)
                -- What a withdrawal of an image takes: itself, and every mask that shows it.
                UNION SELECT digest, id FROM blob WHERE kind = 'image' AND state = 'live' AND project_id = %(project)s
                UNION SELECT d.digest, i.mask_id
                  FROM comparison_image i JOIN compared c ON c.id = i.comparison_id,
                       LATERAL (VALUES (i.head_digest), (i.base_digest)) d (digest)
                 WHERE d.digest IS NOT NULL)
            SELECT h.whose, b.storage_key FROM had h JOIN blob b ON b.id = h.id
            UNION SELECT h.whose, x.storage_key
              FROM had h JOIN blob b ON b.id = h.id AND b.kind = 'image'
              JOIN tombstone x ON x.project_id = b.project_id AND x.digest = b.digest
            UNION SELECT t.number::text, x.storage_key FROM tombstone x JOIN target t ON t.id = ANY(x.made_of)
            """,
            {"project": self.world.project.id},
        ).fetchall()
        self.history.takes = {}
        for whose, key in found:
            self.history.takes.setdefault(whose if len(whose) == 64 else int(whose), set()).add(key)

    @step(
        3,
        when=lambda self: self.history.artifacts,
        picks=st.lists(numbers, min_size=1, max_size=2),
        is_urgent=st.booleans(),
        order_id=st.sampled_from([None, None, None, "x", "y"]),
        stop=stops,
    )
    def delete(self, picks: list[int], is_urgent: bool, order_id: str | None, stop: Stop | None) -> None:
        """Delete snapshots by number; mostly live ones, sometimes one that is gone."""
        pool = sorted(self.history.live())
        if not pool or picks[-1] == 7:
            pool = sorted(self.history.artifacts)
        wanted = {self.one_of(pool, pick) for pick in picks}
        order_id = order_id and f"{self.world.project.slug} {order_id}"
        self.order("delete", stop, wanted, snapshots=sorted(wanted), urgent=is_urgent, request_id=order_id)

    @step(1, branch=st.sampled_from([*BRANCHES, *BRANCHES, None]), is_urgent=st.booleans(), stop=stops)
    def delete_many(self, branch: str | None, is_urgent: bool, stop: Stop | None) -> None:
        """Delete everything, or everything of a branch."""
        live = self.history.live()
        wanted = {number for number in live if branch is None or self.is_of(live[number], branch)}
        target: dict[str, Any] = {"everything": True} if branch is None else {"filter": deletion.Filter(branch=branch)}
        self.order("delete many", stop, wanted, urgent=is_urgent, **target)

    @staticmethod
    def is_of(artifact: Artifact, branch: str) -> bool:
        return artifact.request is not None and f'"head_ref": "{branch}"'.encode() in artifact.request.body

    @step(1, when=lambda self: self.history.named(), which=numbers, is_urgent=st.booleans(), stop=stops)
    def withdraw(self, which: int, is_urgent: bool, stop: Stop | None) -> None:
        """Take one image out of every snapshot that shows it."""
        image = self.one_of(sorted(self.history.named()) if which < 7 else sorted(IMAGES), which)
        wanted = self.history.naming(image)
        self.order("withdraw", stop, wanted, image=image, urgent=is_urgent)

    @step(
        1,
        when=lambda self: self.history.free(),
        picks=st.lists(numbers, min_size=1, max_size=2),
        between=st.sampled_from(["nothing", "upload", "delete"]),
    )
    def delete_as_previewed(self, picks: list[int], between: str) -> None:
        """A preview changes nothing, and its plan is carried out only while it is still true."""
        wanted = {self.one_of(sorted(self.history.free()), pick) for pick in picks}
        shown = deletion.preview(self.resources, self.world.order(snapshots=sorted(wanted)))
        assert set(shown["snapshots"]) == {str(number) for number in wanted}
        if between == "upload" and self.store.weather == "fair":
            self.upload({"one.png": min(IMAGES)}, (None, None), "main")
        if between == "delete":
            self.order("delete", None, {min(wanted)}, snapshots=[min(wanted)])
        self.order("delete as planned", None, wanted, snapshots=sorted(wanted), plan=shown["plan"], is_stale=between)

    def order(self, name: str, stop: Stop | None, wanted: set[int], is_stale: str = "nothing", **fields: Any) -> None:
        self.look_at_targets()
        order_id = fields.get("request_id")
        self.act(
            name,
            lambda: deletion.request(self.resources, self.world.order(**fields)),
            self.was_ordered,
            stop,
            wanted=wanted,
            live=set(self.history.live()),
            held=self.history.held(),
            image=fields.get("image"),
            order_id=order_id,
            earlier=self.history.order_ids.get(order_id) if order_id else None,
            is_stale=is_stale,
            is_planned="plan" in fields,
        )
        if order_id and order_id not in self.history.order_ids:
            # Whoever asked and died may have left a deletion of that id.
            row = self.scene.rows.execute("SELECT id FROM deletion WHERE request_id = %s", [order_id]).fetchone()
            if row:
                self.history.order_ids[order_id] = row[0]

    def was_ordered(self, action: Action) -> None:
        wanted: set[int] = action.facts["wanted"]
        if action.facts["earlier"] is not None:
            assert action.run.error is None, "a repeated order is refused"
            assert action.run.result == action.facts["earlier"], "a repeated order deletes a second time"
            return
        image: str | None = action.facts["image"]
        is_there = wanted <= action.facts["live"] and (image is None or bool(wanted))
        if self.refused(action, NotFound, PlanChanged, Held):
            error = action.run.error
            if isinstance(error, PlanChanged):
                assert action.facts["is_planned"]
                assert action.facts["is_stale"] != "nothing", "a plan is refused though nothing has changed"
            elif isinstance(error, Held):
                assert wanted & action.facts["held"], "refused as held, and nothing is held"
            else:
                assert not is_there, "what is there cannot be deleted"
            return
        assert is_there, "what is gone is deleted again"
        assert not wanted & action.facts["held"], "what is held is deleted"
        took = self.history.deletions[action.run.result].numbers
        assert took == wanted, "a deletion took something else than it was asked to"
        if image is None:
            assert took <= self.history.gone(), "I8: a deletion is answered and its target is there"
        document = self.world.receipt(action.run.result)
        if action.weather_was_fair and not action.was_frozen:
            assert document["journaled_at"] is not None, "answered without the journal though the store was there"

    @step(1, when=lambda self: self.history.live(), which=numbers, stop=stops)
    def hold(self, which: int, stop: Stop | None) -> None:
        """Hold an artifact, or release it if it is held."""
        number = self.one_of(self.history.live(), which)
        verb = self.world.release if self.history.artifacts[number].is_held else self.world.hold
        self.act(
            "release a hold" if self.history.artifacts[number].is_held else "hold",
            lambda: verb(number),
            lambda action: self.refused(action, NotFound, OwnerGone, Conflict, StoreUnavailable),
            stop,
        )
