"""How long to wait before something that failed is tried again. Pure: the caller throws the dice.

    wait = w/2 + dice · w/2    with    w = min(longest, shortest · 2^(attempts − 1))

This is exponential backoff with equal jitter, as described by Marc Brooker in "Exponential Backoff And Jitter" (AWS
Architecture Blog, 2015). Doubling leaves a store that suffers alone; the cap means that nothing waits for ever longer
although it is tried for ever; the random half spreads what failed together, so that it does not come back together.
"""

from __future__ import annotations

from datetime import timedelta


def wait(attempts: int, dice: float, *, shortest: timedelta, longest: timedelta) -> timedelta:
    """The time to wait after the `attempts`-th failure in a row, counted from 1. `dice` is between 0 and 1.

    >>> wait(1, 0.0, shortest=timedelta(seconds=1), longest=timedelta(seconds=60)).total_seconds()
    0.5
    >>> wait(5, 1.0, shortest=timedelta(seconds=1), longest=timedelta(seconds=60)).total_seconds()
    16.0
    >>> wait(10**9, 1.0, shortest=timedelta(seconds=1), longest=timedelta(seconds=60)).total_seconds()
    60.0
    """
    # The exponent is bounded before it is used: after years of attempts the power would not fit any number.
    doubled = min(longest, shortest * 2 ** min(max(attempts, 1) - 1, 20))
    return doubled / 2 + doubled / 2 * dice
