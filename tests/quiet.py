"""Tests that need the machine to themselves, where several processes run tests (pytest-xdist)."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Files that are there anyway: a lock leaves nothing behind.
ROOM, DOOR = Path(__file__), Path(__file__).with_name("conftest.py")


@contextmanager
def turn(*, alone: bool) -> Iterator[None]:
    """Either one process runs alone or any number beside each other. Who wants to be alone keeps the door until it is;
    so nobody who comes later goes before it."""
    with ROOM.open("rb") as room:
        with DOOR.open("rb") as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
