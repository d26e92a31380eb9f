"""The demo: its excerpt is complete, and it writes the right files and figures."""

from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest
import soundfile
from fakes import FakeRepairer
from stemprover.engine.errors import OutputError, OutputExistsError, StemProverError
from stemprover.engine.preset import load_preset
from stemprover.reports import demo
from stemprover.reports.spectrogram import draw_spectrograms


def read(path):
    return soundfile.read(path, dtype="float32")[0].T


def always(repairer):
    """A choice that is always this repairer with preset general."""
    return lambda pair: (repairer, replace(load_preset("general"), note="always general"))


def test_the_files_of_the_excerpt_match():
    infos = [soundfile.info(demo.DEMO / f"{name}.flac") for name in ("song", "separated", "truth")]
    assert len({(i.frames, i.samplerate, i.channels) for i in infos}) == 1
    assert 15 <= infos[0].duration <= 20


def test_the_demo_writes_audio_spectrograms_and_measures(tmp_path):
    fake = FakeRepairer(gain=0.5, mix_gain=0.25)
    steps = []
    report = demo.run_demo(tmp_path / "out", always(fake), progress=lambda *now: steps.append(now))
    before, after, truth = (read(tmp_path / "out" / f"{name}.wav") for name in ("before", "after", "truth"))
    np.testing.assert_array_equal(before, read(demo.DEMO / "separated.flac"))
    np.testing.assert_array_equal(truth, read(demo.DEMO / "truth.flac"))
    np.testing.assert_allclose(after, 0.5 * before + 0.25 * read(demo.DEMO / "song.flac"), atol=2**-15)
    assert fake.had_mix
    assert report.chosen == "always general"
    assert steps

    from stemprover.engine.metrics.basic import log_spectral_distance, si_sdr

    assert report.si_sdr_db == pytest.approx((si_sdr(before, truth), si_sdr(after, truth)), rel=1e-12)
    assert report.log_spectral_distance_db == (
        log_spectral_distance(before, truth),
        log_spectral_distance(after, truth),
    )
    figure = matplotlib.image.imread(tmp_path / "out" / "spectrograms.png")
    assert figure.shape[0] > 800
    assert figure.shape[1] > 1000
    demo.run_demo(tmp_path / "out", always(fake))  # again, replacing its own files
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(demo.FILES)


def test_the_demo_replaces_only_files_of_a_demo(tmp_path):
    (tmp_path / "before.wav").write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match=r"before\.wav already exists and is not from a demo"):
        demo.run_demo(tmp_path, always(FakeRepairer()))
    assert [path.name for path in tmp_path.iterdir()] == ["before.wav"]
    assert (tmp_path / "before.wav").read_bytes() == b"mine"


def test_an_interrupted_demo_can_be_run_again(tmp_path):
    def stopped(pair):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo.run_demo(tmp_path, stopped)
    assert demo.run_demo(tmp_path, always(FakeRepairer())).folder == tmp_path


def test_spectrograms_show_a_tone_at_its_frequency(tmp_path):
    """The bright row is higher up for a higher tone."""
    rows = []
    for hertz in (3000, 9000):
        tone = np.sin(2 * np.pi * hertz * np.arange(44100) / 44100).astype(np.float32)[None]
        draw_spectrograms({"Tone": tone}, 44100, tmp_path / "tone.png")
        image = matplotlib.image.imread(tmp_path / "tone.png")
        column = image[:, image.shape[1] // 2, :3].sum(axis=1)
        inside = slice(60, -80)
        rows.append(60 + int(np.argmax(np.where(column[inside] < 2.95, column[inside], 0))))
    assert rows[0] > rows[1]


def test_very_short_signals_can_be_drawn(tmp_path):
    draw_spectrograms({"Click": np.ones((2, 1), np.float32)}, 8000, tmp_path / "click.png")
    assert (tmp_path / "click.png").stat().st_size > 1000


def test_a_missing_excerpt_and_an_unusable_folder_give_clear_errors(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        demo.run_demo(tmp_path / "file" / "out", always(FakeRepairer()))
    monkeypatch.setattr(demo, "DEMO", tmp_path)
    with pytest.raises(StemProverError, match=r"song.flac: the bundled excerpt is missing; reinstall StemProver"):
        demo.run_demo(tmp_path / "out", always(FakeRepairer()))


def test_the_command_uses_the_preset_that_auto_chooses(tmp_path, run_cli):
    result = run_cli("demo", "-o", tmp_path / "out", repairer=FakeRepairer())
    assert result.code == 0, result.err
    assert "before.wav with preset auto: looks like the output of a mask-based separator" in result.out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(demo.FILES)
