"""Fixtures of the host's tests."""

from engine_server import engine  # noqa: F401
