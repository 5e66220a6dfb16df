"""The only door to PostgreSQL: SQL as literal text, each statement in a typed function beside its row type.

Functions here take the caller's transaction first and never commit; transactions open in `work` and `ledger` only.
"""
