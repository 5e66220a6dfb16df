"""`python -m snapshed` is the command line."""

from __future__ import annotations

from snapshed.cli import main

if __name__ == "__main__":
    main()
