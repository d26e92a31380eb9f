"""The second separator: properties of its masks, that it learns, and its errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from stemprover.engine.train.corpus.four_stems import (
    BINS,
    VARIANTS,
    FourStems,
    MaskNet,
    compressed,
    main,
    train_four_stems,
)
from stemprover.engine.train.corpus.sources import SAMPLE_RATE, CorpusError, Source
from stemprover.engine.train.corpus.spleeter import SeparatorError
from stemprover.engine.train.corpus.stem_remix import STEMS, StemLibrary, StemRemixer

SECONDS = 2


def tone(frequency_hz: float) -> np.ndarray:
    time = np.arange(SECONDS * SAMPLE_RATE) / SAMPLE_RATE
    return 0.2 * np.sin(2 * np.pi * frequency_hz * time)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    """Two songs whose stems are far apart in frequency."""
    folder = tmp_path_factory.mktemp("songs")
    rng = np.random.default_rng(0)
    found = []
    for n, song in enumerate(("one", "two")):
        (folder / song).mkdir()
        click = np.zeros(SECONDS * SAMPLE_RATE)
        click[:: SAMPLE_RATE // 4] = 0.9
        sounds = {"drums": click, "bass": tone(80 + 20 * n), "guitar": tone(900 + 90 * n), "piano": tone(1500)}
        sounds["vocals"] = tone(5000 + 500 * n) + 0.01 * rng.standard_normal(SECONDS * SAMPLE_RATE)
        for stem, sound in sounds.items():
            sf.write(folder / song / f"{stem}.wav", np.stack([sound, sound], 1), SAMPLE_RATE, subtype="FLOAT")
        band = tuple(folder / song / f"{stem}.wav" for stem in ("drums", "bass", "guitar", "piano"))
        found.append(Source(f"{song}/band", "accompaniment", "song", song, "CC0", "train", band))
        vocals = (folder / song / "vocals.wav",)
        found.append(Source(f"{song}/vocals", "vocals", "song", song, "CC0", "train", vocals))
    return found


@pytest.fixture(scope="module")
def weights(sources: list[Source], tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("weights") / "new" / "weights.pt"
    losses = train_four_stems(sources, out, batch=1, frames=48, steps=30, say=lambda line: None)
    assert np.mean(losses[-6:]) < 0.75 * np.mean(losses[:3]), "thirty steps on four tones reduce the loss"
    assert [path.name for path in out.parent.iterdir()] == [out.name], "only the weights are left"
    return out


def test_masks_sum_to_one() -> None:
    torch.manual_seed(0)
    masks = MaskNet()(torch.rand(1, 2, BINS, 16))
    assert masks.shape == (1, len(STEMS), 2, BINS, 16)
    assert torch.allclose(masks.sum(dim=1), torch.ones(()), atol=1e-5)
    assert float(masks.min()) >= 0.0


def test_the_networks_input_does_not_depend_on_the_level() -> None:
    magnitude = torch.rand(1, 2, BINS, 8)
    assert torch.allclose(compressed(magnitude), compressed(100 * magnitude), rtol=1e-3)


@pytest.mark.parametrize("stem", STEMS)
def test_a_stem_and_the_rest_sum_to_the_mix(weights: Path, stem: str) -> None:
    rng = np.random.default_rng(1)
    mix = (0.1 * rng.standard_normal((2, 30_000))).astype(np.float32)
    out = FourStems(weights).separate_all(mix, stem)
    assert out.keys() == VARIANTS.keys()
    for variant, (_, top) in VARIANTS.items():
        both = out[variant]["vocals"] + out[variant]["accompaniment"]
        assert both.shape == mix.shape
        spectrum = np.abs(np.fft.rfft(both))
        edge = round(top / 2048 * 30_000)
        if top < BINS:
            assert np.square(spectrum[:, edge + 600 :]).sum() < 1e-3 * np.square(spectrum).sum()
        kept = np.abs(np.fft.rfft(both - mix))[:, 30 : edge - 600]
        assert np.square(kept).sum() < 1e-3 * np.square(spectrum).sum()


def test_training_separates_stems(weights: Path) -> None:
    bass, vocals = (np.tile(tone(hz), (2, 1)).astype(np.float32) for hz in (80.0, 5000.0))
    out = FourStems(weights).separate_all(bass + vocals, "bass")["average"]["vocals"]
    share = [float(np.abs(np.sum(out * x)) / np.sum(x * x)) for x in (bass, vocals)]
    assert share[0] > 2 * share[1]


def test_a_remix_has_the_stem_and_the_rest(sources: list[Source]) -> None:
    for stem in STEMS:
        remix = StemRemixer(StemLibrary.of(sources), stem, SAMPLE_RATE).draw(np.random.default_rng(3))
        again = StemRemixer(StemLibrary.of(sources), stem, SAMPLE_RATE).draw(np.random.default_rng(3))
        assert np.array_equal(remix.vocals, again.vocals)
        assert remix.info["stem"] == stem
        assert set(remix.info["sources"]) <= set(STEMS)
        assert stem in remix.info["sources"]
        assert remix.info["licences"] == ["CC0"]
        assert np.abs(remix.vocals + remix.band).max() <= 0.9001
        assert min(np.square(x).mean() for x in (remix.vocals, remix.band)) > 0


def test_bad_input_gives_one_line_errors(sources: list[Source], weights: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"^no source has vocals as a separate stem: add songs with these stems$"):
        StemLibrary.of([source for source in sources if source.role != "vocals"])
    with pytest.raises(SeparatorError, match=r"no weights at .*absent.pt: train them with python -m stemprover"):
        FourStems(tmp_path / "absent.pt")
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    with pytest.raises(SeparatorError, match=r"bad.pt has no weights for this separator"):
        FourStems(tmp_path / "bad.pt")
    separator = FourStems(weights)
    with pytest.raises(SeparatorError, match=r"stem='flute' is unknown: use one of drums, bass, other, vocals"):
        separator.separate_all(np.zeros((2, 100), np.float32), "flute")
    with pytest.raises(SeparatorError, match=r"shape \(1, 100\)"):
        separator.separate_all(np.zeros((1, 100), np.float32))


def test_the_command_reports_missing_stems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEMPROVER_CACHE", str(tmp_path))
    (tmp_path / "songs").mkdir()
    with pytest.raises(SystemExit, match=r"^Error: "):
        main(["--stems", str(tmp_path / "songs"), "--out", str(tmp_path / "w.pt"), "--minutes", "0.01"])
    assert not (tmp_path / "w.pt").exists()
