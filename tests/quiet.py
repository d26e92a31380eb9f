"""Lets tests run alone when several processes run tests (pytest-xdist)."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Locks on existing files, so none are left behind.
ROOM, DOOR = Path(__file__), Path(__file__).with_name("conftest.py")


@contextmanager
def turn(*, alone: bool) -> Iterator[None]:
    """Either one process runs alone or any number run together. A process that wants to be alone holds the door while
    it waits, so that later ones queue behind it."""
    with ROOM.open("rb") as room:
        with DOOR.open("rb") as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
