"""Standard output and standard error that never stop the work, whatever becomes of them."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any


class _Lasting(io.FileIO):
    """Drops what cannot be written, because the disk is full, the reader of the pipe or the terminal is gone."""

    def write(self, data: Any) -> int:
        try:
            written = super().write(data)
        except OSError:
            written = None
        return memoryview(data).nbytes if written is None else written


@contextlib.contextmanager
def lasting_streams() -> Iterator[None]:
    """Replaces sys.stdout and sys.stderr. What cannot be encoded, as in file names, is written with backslashes."""
    if os.name == "posix":
        # Without this, the next file that is opened would take the place of a stream that was closed by the caller.
        while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(handle)
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_lasting(stream, number) for number, stream in enumerate(before, 1))
    try:
        yield
    finally:
        for stream, was in zip((sys.stdout, sys.stderr), before, strict=True):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
                if stream is not was:
                    stream.close()  # its number may soon be another file's
        sys.stdout, sys.stderr = before


def _lasting(stream: Any, number: int) -> Any:
    if stream is not None and (os.name != "posix" or not isinstance(stream, io.TextIOWrapper)):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        return stream
    with contextlib.suppress(OSError):
        if stream is not None:
            stream.flush()
    handle = number if stream is None else stream.fileno()
    encoding = "utf-8" if stream is None else stream.encoding
    return io.TextIOWrapper(
        io.BufferedWriter(_Lasting(handle, "w", closefd=False)),
        encoding,
        errors="backslashreplace",
        line_buffering=number == 2 or os.isatty(handle),
    )
