"""Files repaired by a real (small, random) model equal the repaired array, at any rate and number of channels."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile
from paths import ROOT
from stemprover.engine.errors import ModelError
from stemprover.engine.repair import Repairer
from stemprover.offline.render import render_file

EXAMPLE = ROOT / "examples" / "pedalboard_chain.py"


@pytest.fixture(scope="module")
def repairer(lively_bundle: Path) -> Repairer:
    return Repairer(bundle=lively_bundle, steps=1, jobs=2)


def read(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32", always_2d=True)[0].T


@pytest.mark.parametrize(("rate", "channels"), [(44100, 2), (44100, 1), (48000, 2), (8000, 1), (96000, 2), (44100, 5)])
@pytest.mark.parametrize("with_mix", [True, False])
def test_a_repaired_file_equals_the_repaired_array(repairer, make_audio, tmp_path, rate, channels, with_mix):
    kind = {"rate": rate, "channels": channels, "seconds": 1.6, "subtype": "FLOAT"}
    stem, rest = make_audio("stem.wav", **kind), make_audio("rest.wav", seed=1, **kind)
    mix = make_audio("mix.wav", levels=read(stem) + read(rest), rate=rate, subtype="FLOAT")
    report = render_file(stem, tmp_path / "out.wav", repairer, mix=mix if with_mix else None)
    whole = repairer.process(read(stem), rate, read(mix) if with_mix else None)
    np.testing.assert_allclose(read(tmp_path / "out.wav"), whole, atol=1e-5)
    assert report.correction_db is not None
    assert np.abs(whole - read(stem)).max() > 1e-3, "the test needs a model that changes something"


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "DOUBLE"])
def test_wet_zero_returns_the_file_bit_for_bit(lively_bundle, make_audio, tmp_path, subtype):
    source = make_audio(subtype=subtype, rate=48000)
    report = render_file(source, tmp_path / "out.wav", Repairer(bundle=lively_bundle, wet=0.0, jobs=1))
    dtype = "float64" if subtype == "DOUBLE" else "int32"
    np.testing.assert_array_equal(*(soundfile.read(p, dtype=dtype)[0] for p in (source, tmp_path / "out.wav")))
    assert report.correction_db is None


@pytest.mark.parametrize("samples", [1, 2, 700])
def test_the_shortest_files_keep_their_length(repairer, make_audio, tmp_path, samples):
    source = make_audio(levels=np.full((2, samples), 0.25, np.float32), subtype="PCM_24")
    render_file(source, tmp_path / "out.wav", repairer)
    assert soundfile.info(tmp_path / "out.wav").frames == samples


def test_silence_stays_silence(repairer, make_audio, tmp_path):
    source = make_audio(levels=np.zeros((2, 60_000), np.float32))
    report = render_file(
        source, tmp_path / "out.wav", repairer, mix=make_audio("mix.wav", levels=np.zeros((2, 60_000)))
    )
    assert not read(tmp_path / "out.wav").any()
    assert report.correction_db is None


def test_the_example_script_keeps_length_and_alignment(lively_bundle, make_audio, tmp_path):
    spec = importlib.util.spec_from_file_location("pedalboard_chain", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    stem, mix = make_audio("stem.wav", seconds=1.7), make_audio("mix.wav", seconds=1.7, seed=1)
    example.repair_in_chain(stem, mix, tmp_path / "dry.wav", Repairer(bundle=lively_bundle, wet=0.0))
    dry, source = read(tmp_path / "dry.wav"), read(stem)
    assert dry.shape == source.shape
    # High-passed and compressed, but not shifted: the correlation is highest at an offset of 0.
    offsets = range(-3, 4)
    match = [float(np.sum(np.roll(dry, offset, axis=1)[:, 10:-10] * source[:, 10:-10])) for offset in offsets]
    assert offsets[int(np.argmax(match))] == 0
    example.repair_in_chain(stem, mix, tmp_path / "wet.wav", Repairer(bundle=lively_bundle))
    assert read(tmp_path / "wet.wav").shape == source.shape


def test_a_missing_or_damaged_model_gives_a_one_line_error_and_exit_code_1(
    run_cli, make_audio, tmp_path, monkeypatch, lively_bundle
):
    from stemprover.engine import repair

    damaged = tmp_path / "bundle"
    damaged.mkdir()
    for path in lively_bundle.iterdir():
        content = path.read_bytes()
        half = len(content) // 2
        (damaged / path.name).write_bytes(
            content if path.suffix == ".json" else content[:half] + b"\0\0" + content[half:]
        )
    source = make_audio()
    for folder in (tmp_path / "nothing", damaged):
        monkeypatch.setattr(repair, "base_bundle", lambda folder=folder: folder)
        result = run_cli("repair", source, "-o", tmp_path / "out.wav")
        assert result.code == 1
        assert result.err.startswith("Error: ")
        assert len(result.err.splitlines()) == 1
        assert str(folder) in result.err
        with pytest.raises(ModelError):
            Repairer(bundle=folder)
    assert not (tmp_path / "out.wav").exists()
