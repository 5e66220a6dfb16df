"""Snapshed: a self-hosted visual snapshot service where delete means delete."""

from __future__ import annotations

from importlib.metadata import version

__version__ = version("snapshed")
