"""Keeps NumPy's BLAS on the calling thread where the detectors use it.

BLAS threads spin while they wait, beside ONNX Runtime's threads and other segments' work: on two cores a repair took
half as long again, and twice the processor time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

_lock = threading.Lock()
_users = 0
_limit: Any = None


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Limits NumPy's BLAS to one thread until the last of all users, in any thread, has left; then the process has its
    former number again. Does nothing where another package holds threadpoolctl's control of BLAS."""
    global _users, _limit
    with _lock:
        if _users == 0:
            _limit = _blas().limit(limits=1)
            _let_other_threads_limit()
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _limit.restore_original_limits()
                _let_other_threads_limit()


def limit_own_process() -> None:
    """For our own programs, before NumPy is imported: no BLAS threads are made at all, unless the user asks for
    them."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _let_other_threads_limit() -> None:
    """Recent versions of threadpoolctl obey only the thread that has set a limit first: here it may be another each
    time."""
    import threadpoolctl

    if hasattr(threadpoolctl.OpenBLASController, "clear_controlling_thread"):
        threadpoolctl.OpenBLASController.clear_controlling_thread()


@cache
def _blas() -> Any:
    import numpy  # noqa: F401 - loads its BLAS, which is looked for next
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(internal_api="openblas")
