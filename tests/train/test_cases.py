"""Cases for validation, made from the pool."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from stemprover.engine.errors import TrainingError
from stemprover.engine.train.cases import faulty, main, separated, simulated
from stemprover.engine.train.corpus.pool import FULL_SCALE, open_shard, shard_paths
from stemprover.engine.train.corpus.simulated_faults import SIMULATORS
from stemprover.reports.validate import find_cases


def test_the_command_writes_cases_that_validate_finds(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["cases", str(pool), str(tmp_path), "--split", "valid", "--separated", "2", "--simulated", "2"]
    monkeypatch.setattr("sys.argv", arguments)
    main()
    cases = find_cases(tmp_path / "valid")
    kinds = {case.kind for case in cases}
    assert kinds == {"separated-vocals", "separated-accompaniment", "mixed", *SIMULATORS}
    assert all(sum(case.kind == kind for case in cases) == 2 for kind in kinds)
    item = open_shard(shard_paths(pool / "valid")[0])[0][0].astype(np.float32)
    first = next(case for case in cases if case.kind == "separated-vocals")
    wanted = {"truth": item[0] / FULL_SCALE, "degraded": item[2] / FULL_SCALE, "mix": (item[0] + item[1]) / FULL_SCALE}
    peak = max(1.0, *(np.abs(sound).max() for sound in wanted.values()))
    for role, expected in wanted.items():
        sound = soundfile.read(getattr(first, role))[0].T
        np.testing.assert_allclose(sound * peak, expected, rtol=0.0, atol=1e-6, err_msg=role)


def test_cases_are_seeded_and_differ_from_the_truth(pool: Path) -> None:
    one, same, other = (list(simulated(pool, "valid", 1, seed)) for seed in (1, 1, 2))
    for (kind, _, a), (_, _, b) in zip(one, same, strict=True):
        assert np.array_equal(a["degraded"], b["degraded"]), kind
        assert np.abs(a["degraded"] - a["truth"]).max() > 1e-4, kind
    assert any(not np.array_equal(a[2]["degraded"], b[2]["degraded"]) for a, b in zip(one, other, strict=True))


def test_faulty_stems_become_cases_by_family_and_by_whether_they_are_trained_on(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    items = (3000 * rng.standard_normal((2, 6, 2, 1000))).astype(np.int16)
    faults = [["opus"], ["mp3"], ["griffin_lim"], ["opus", "griffin_lim"]]
    infos = [{"item": n, "role": "drums", "faults": faults} for n in range(2)]
    (tmp_path / "test").mkdir()
    np.save(tmp_path / "test" / "faulty_000.npy", items)
    (tmp_path / "test" / "faulty_000.json").write_text(json.dumps({"items": infos}))
    made = list(faulty(tmp_path, "test", 1))
    assert [kind for kind, _, _ in made] == ["unknown-bands", "known-bands", "unknown-phases"]
    assert [kind for kind, _, _ in faulty(tmp_path, "test", 5)] == 2 * [kind for kind, _, _ in made]
    _, name, audio = made[1]
    assert name == "0-1-mp3-drums"
    np.testing.assert_allclose(audio["degraded"], items[0, 3] / FULL_SCALE, atol=1e-7)
    np.testing.assert_allclose(audio["mix"] - audio["truth"], items[0, 1] / FULL_SCALE, atol=1e-7)


def test_a_missing_pool_is_reported(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="build the pool"):
        list(separated(tmp_path, "valid"))
