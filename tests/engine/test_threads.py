"""The number of BLAS threads while repairs run, and afterwards."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import numpy  # noqa: F401 - loads its BLAS
import pytest
from stemprover.engine.threads import limit_own_process, single_threaded_blas
from threadpoolctl import OpenBLASController, ThreadpoolController

BEFORE = 2


def numpys_blas() -> ThreadpoolController:
    """NumPy's OpenBLAS; other packages may have loaded their own."""
    found = ThreadpoolController().select(internal_api="openblas").info()
    return ThreadpoolController().select(filepath=[one["filepath"] for one in found if "numpy" in one["filepath"]])


def blas_threads() -> set[int]:
    """The number of BLAS threads."""
    return {library["num_threads"] for library in numpys_blas().info()}


@pytest.fixture(autouse=True)
def several_threads() -> Iterator[None]:
    """BLAS has two threads, whatever the environment says."""
    if not numpys_blas().info():
        pytest.skip("this NumPy does not use OpenBLAS")
    let_any_thread_set_the_number()
    limit = numpys_blas().limit(limits=BEFORE)
    let_any_thread_set_the_number()
    yield
    let_any_thread_set_the_number()
    limit.restore_original_limits()
    let_any_thread_set_the_number()


def let_any_thread_set_the_number() -> None:
    """Newer threadpoolctl ignores all threads but the first one that set it."""
    if hasattr(OpenBLASController, "clear_controlling_thread"):
        OpenBLASController.clear_controlling_thread(force=True)


def test_blas_has_one_thread_inside_and_as_many_as_before_afterwards() -> None:
    assert blas_threads() == {BEFORE}
    with single_threaded_blas():
        assert blas_threads() == {1}
    assert blas_threads() == {BEFORE}


def test_nested_use_ends_with_the_outermost() -> None:
    with single_threaded_blas():
        with single_threaded_blas():
            assert blas_threads() == {1}
        assert blas_threads() == {1}
    assert blas_threads() == {BEFORE}


def test_an_exception_restores_the_number_too() -> None:
    with pytest.raises(ValueError, match="inside"), single_threaded_blas():
        raise ValueError("inside")
    assert blas_threads() == {BEFORE}


def test_any_thread_can_use_it_after_another_has() -> None:
    found: list[set[int]] = []

    def use() -> None:
        with single_threaded_blas():
            found.append(blas_threads())

    with single_threaded_blas():
        pass
    user = threading.Thread(target=use)
    user.start()
    user.join()
    assert found == [{1}]
    assert blas_threads() == {BEFORE}


def test_of_users_in_several_threads_the_last_one_restores_the_number() -> None:
    """The first one in leaves first, and lives on."""
    entered, leave, left = ([threading.Event() for _ in range(3)] for _ in range(3))
    ended = threading.Event()

    def use(number: int) -> None:
        with single_threaded_blas():
            entered[number].set()
            leave[number].wait(10.0)
        left[number].set()
        ended.wait(10.0)

    users = [threading.Thread(target=use, args=(number,)) for number in range(3)]
    try:
        for number, user in enumerate(users):
            user.start()
            assert entered[number].wait(10.0)
            assert blas_threads() == {1}
        for number in (0, 2):
            leave[number].set()
            assert left[number].wait(10.0)
            assert blas_threads() == {1}
        leave[1].set()
        assert left[1].wait(10.0)
        assert blas_threads() == {BEFORE}
    finally:
        for event in (*leave, ended):
            event.set()
        for user in users:
            user.join(10.0)


def test_many_users_at_once_leave_the_number_as_it_was() -> None:
    def use() -> None:
        for _ in range(200):
            with single_threaded_blas():
                pass

    users = [threading.Thread(target=use) for _ in range(4)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert blas_threads() == {BEFORE}


@pytest.mark.parametrize(("setting", "expected"), [(None, "1"), ("3", "3")])
def test_our_own_programs_make_no_blas_threads_unless_the_user_asks_for_them(
    setting: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if setting is None:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", "")  # so that it is restored afterwards
        monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    else:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", setting)
    limit_own_process()
    assert os.environ["OPENBLAS_NUM_THREADS"] == expected
