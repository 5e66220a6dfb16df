"""What a comparison means for whoever waits for it: one word, from counts, rules and a person's decision.

Nothing is remembered here: the same facts give the same word, today and in a year.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

Verdict = Literal["pending", "passed", "changed", "approved", "rejected", "failed", "no_base"]
State = Literal["waiting", "running", "done", "failed"]
Decided = Literal["approved", "rejected"]


BASE_GRACE = timedelta(minutes=10)
"""How long a snapshot whose base is not here yet is said to wait for it, before it is said to have none."""


AUTOMATIC = "auto:"
"""How the actor of an automatic approval begins; the number of the snapshot whose approval it repeats follows."""


def awaits_base(base_sha: str | None, created_at: datetime, now: datetime) -> bool:
    """Whether a snapshot without a comparison may still get one: it names a base, and that may be on its way."""
    return base_sha is not None and now - created_at <= BASE_GRACE


@dataclass(frozen=True, slots=True)
class Rules:
    """Which differences a person has to look at. Errored images always need one; unchanged and skipped never do."""

    fail_on_added: bool = False
    fail_on_removed: bool = True
    fail_on_changed: bool = True
    fail_on_renamed: bool = False

    def match(self, counts: Mapping[str, int]) -> bool:
        """Whether any difference is of a kind that these rules name."""
        named = {
            "added": self.fail_on_added,
            "removed": self.fail_on_removed,
            "changed": self.fail_on_changed,
            "renamed": self.fail_on_renamed,
        }
        return any(matters and counts.get(category, 0) > 0 for category, matters in named.items())


DEFAULT_RULES = Rules()


# | comparison       | errored | rules match | decision | verdict  |                                               |
# |------------------|---------|-------------|----------|----------|-----------------------------------------------|
# | any or none      | any     | any         | rejected | rejected | a person's no holds, whatever else is known   |
# | none             | -       | -           | other    | no_base  | nothing to compare with, and nothing to come  |
# | waiting, running | -       | -           | other    | pending  |                                               |
# | failed           | -       | -           | other    | failed   | nobody saw a difference, so nobody accepts it |
# | done             | yes     | any         | none     | failed   | what was not compared has not passed          |
# | done             | no      | yes         | none     | changed  |                                               |
# | done             | no      | no          | any      | passed   |                                               |
# | done             | either one is yes     | approved | approved | including the images that could not be read   |
def verdict(
    state: State | None, counts: Mapping[str, int], decision: Decided | None, rules: Rules = DEFAULT_RULES
) -> Verdict:
    """The word for one snapshot. `state` None means no comparison; while a base may still arrive, it is "waiting".

    `counts` holds images by category, and `decision` the newest one; both may be empty.
    """
    if decision == "rejected":
        return "rejected"
    match state:
        case None:
            return "no_base"
        case "waiting" | "running":
            return "pending"
        case "failed":
            return "failed"
        case "done":
            return _of_a_report(counts, rules, approved=decision == "approved")


def _of_a_report(counts: Mapping[str, int], rules: Rules, *, approved: bool) -> Verdict:
    errored = counts.get("errored", 0) > 0
    if not errored and not rules.match(counts):
        return "passed"
    if approved:
        return "approved"
    return "failed" if errored else "changed"


# --- Image by image ------------------------------------------------------------------------------------------------

DECIDABLE = frozenset({"changed", "added", "removed", "renamed", "errored"})
"""The differences anybody can say anything about."""


# | any is rejected | every one that needs a person's eye is approved, and there is one | the whole |
# |-----------------|-------------------------------------------------------------------|-----------|
# | yes             | -                                                                 | rejected  |
# | no              | yes                                                               | approved  |
# | no              | no                                                                | undecided |
def of_images(
    categories: Mapping[str, str], decided: Mapping[str, Decided], rules: Rules = DEFAULT_RULES
) -> Decided | None:
    """What the decisions about single images say about the whole. `categories` holds every difference by name, `decided`
    what stands about some of them. What no rule asks for may be decided too: a no to it is a no to the whole."""
    needing: Collection[str] = [name for name, category in categories.items() if needs_review(category, rules)]
    if any(decided.get(name) == "rejected" for name in categories):
        return "rejected"
    return "approved" if needing and all(decided.get(name) == "approved" for name in needing) else None


def needs_review(category: str, rules: Rules = DEFAULT_RULES) -> bool:
    """Whether a difference of this kind has to be looked at before its snapshot passes."""
    return category == "errored" or rules.match({category: 1})
