"""The plug-in in Ardour: a session with two tracks is exported. The second track subtracts, sample by sample, the
expected output of the first; the tests examine what remains."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from bridges import running
from fakes import FakeModelRepairer
from hosts import needs
from paths import DEMO
from stemprover.benchmarks.ardour import Session
from stemprover.engine.repair import Repairer
from stemprover.engine.stream import CorrectionStream

NO_BRIDGE_PORT, EDGE = 9, 128  # EDGE: samples over which the correction is faded in and out at the ends
pytestmark = pytest.mark.quiet


@pytest.fixture(autouse=True)
def ardour(plugin_environment: Callable[..., None]) -> None:
    needs(bool(shutil.which("ardour7-lua") and shutil.which("ardour7-export")), "Ardour 7")


@pytest.fixture(params=["lv2", "vst3"])
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Session:
    return Session(tmp_path, request.getfixturevalue(request.param))


def test_two_tracks_cancel_each_other(session: Session) -> None:
    stem = (0.1 * np.random.default_rng(0).standard_normal((2, 4 * 44100))).astype(np.float32)
    session.build(stem, -stem)
    with running(FakeModelRepairer()) as bridge:
        identity = session.export(bridge.port).sound
    assert not identity.any(), "an unchanged stem cancels: both tracks are in sync to the sample"

    with running(FakeModelRepairer({"general": 1.0})) as bridge:
        twice = session.export(bridge.port).sound
    # Twice the stem minus the stem: the silence above was not simply a lack of audio.
    np.testing.assert_allclose(twice[:, EDGE : stem.shape[1] - EDGE], stem[:, EDGE:-EDGE], atol=1e-6)

    without = session.export(NO_BRIDGE_PORT, timeout_s=0.3).sound
    assert not without.any(), "without a bridge the stem is unrepaired and in sync"
    log = session.folder / "home" / ".config" / "stemprover" / "plugin.log"
    assert "offline rendering continues without repair" in log.read_text()


def test_a_click_keeps_its_position(session: Session) -> None:
    click = np.zeros((2, 2 * 44100), np.float32)
    click[:, 30000] = 0.5
    session.build(click, np.zeros_like(click))
    with running(FakeModelRepairer()) as bridge:
        out = session.export(bridge.port).sound
    np.testing.assert_array_equal(out[:, : click.shape[1]], click)


def test_an_export_equals_repair(session: Session, lively_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stem = soundfile.read(DEMO / "separated.flac", dtype="float32", frames=4 * 44100)[0].T
    stem = np.ascontiguousarray(np.concatenate([stem, np.zeros((2, 8192), np.float32)], axis=1))
    session.build(stem, np.zeros_like(stem))
    blocks, process = list[tuple[CorrectionStream, np.ndarray]](), CorrectionStream.process_channels

    def record(stream: CorrectionStream, stem: np.ndarray, *rest: Any, **options: Any) -> Any:
        blocks.append((stream, stem.copy()))
        return process(stream, stem, *rest, **options)

    monkeypatch.setattr(CorrectionStream, "process_channels", record)
    with running(partial(Repairer, bundle=lively_bundle)) as bridge:
        out = session.export(bridge.port).sound
    monkeypatch.undo()
    # Ardour plays some silence first, so the model's frames are aligned as in a file with that silence at its start.
    # If Ardour restarted the export, the last stream counts.
    whole = np.concatenate([block for stream, block in blocks if stream is blocks[-1][0]], axis=1)
    silence = int(np.flatnonzero(whole.any(axis=0))[0])
    padded = np.concatenate([np.zeros((2, silence), np.float32), stem], axis=1)
    wanted = Repairer(bundle=lively_bundle, jobs=1).process(padded, 44100)[:, silence:]
    np.testing.assert_allclose(out[:, : stem.shape[1]], wanted, atol=1e-4)
    assert np.abs(wanted - stem).max() > 1e-2, "there was something to repair"


def test_the_mix_arrives_over_a_bus_with_four_channels(session: Session) -> None:
    rng = np.random.default_rng(0)
    stem, mix = (0.1 * rng.standard_normal((2, 4 * 44100)).astype(np.float32) for _ in range(2))
    session.build(stem, mix, bus=True)
    with running(FakeModelRepairer({"general": 1.0}, mix_gain=0.5)) as bridge:
        out = session.export(bridge.port).sound
    wanted = 2 * stem + 0.5 * mix
    np.testing.assert_allclose(out[:, EDGE : stem.shape[1] - EDGE], wanted[:, EDGE:-EDGE], atol=1e-5)


def test_the_preset_is_saved_with_the_session(vst3: Path, tmp_path: Path) -> None:
    session = Session(tmp_path, vst3)  # scripts can set a VST3's parameters but not an LV2's properties
    stem = (0.1 * np.random.default_rng(0).standard_normal((2, 2 * 44100))).astype(np.float32)
    session.build(stem, np.zeros_like(stem), preset=4 / 47)
    with running(FakeModelRepairer({"general": 1.0, "bleed": 2.0})) as bridge:
        out = session.export(bridge.port).sound
    np.testing.assert_allclose(out[:, EDGE : stem.shape[1] - EDGE], 3 * stem[:, EDGE:-EDGE], atol=1e-5)
