"""Lists the modules that hold fixtures; each says what it is for."""

from __future__ import annotations

pytest_plugins = ["fixtures.server", "fixtures.world", "fixtures.s3", "fixtures.lying", "fixtures.disasters"]
