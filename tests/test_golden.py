"""Repairs, streams, a bridge and an export equal their golden values."""

from __future__ import annotations

import numpy as np
import pytest
from golden.make_golden import FILE, TOLERANCE, cases, difference

CASES = cases()


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return dict(np.load(FILE))


def test_every_case_has_its_golden_value(golden: dict[str, np.ndarray]) -> None:
    assert {name for name in golden if not name.endswith("sha256")} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_a_repair_equals_its_golden_value(name: str, golden: dict[str, np.ndarray]) -> None:
    before, after = CASES[name]()
    assert difference(before, after, golden[name]) < TOLERANCE
