"""The rules, as pure functions over plain values: no I/O, clock, randomness or logging happens in here."""
