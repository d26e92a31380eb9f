"""A screen that nobody sees, for the plug-in's editor."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def x_server() -> Iterator[str]:
    """Xvfb on a display of its own choice; the display's name."""
    reads, writes = os.pipe()
    with subprocess.Popen(["Xvfb", "-displayfd", str(writes)], pass_fds=[writes], stderr=subprocess.DEVNULL) as server:
        os.close(writes)
        try:
            with os.fdopen(reads) as told:
                number = told.readline().strip()
            if not number:
                raise RuntimeError("Xvfb does not start")
            yield f":{number}"
        finally:
            server.terminate()
