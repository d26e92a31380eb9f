"""Resynthesised singers: independent pitch and formants, sung words, and no singing from held-out songs in training."""

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from scipy.signal import lfilter
from stemprover.engine.train.corpus import singers, singing
from stemprover.engine.train.corpus.remix import RemixConfig, Remixer
from stemprover.engine.train.corpus.singers import Singer, resynthesise
from stemprover.engine.train.corpus.singing import make_singing, singing_sources
from stemprover.engine.train.corpus.sources import SAMPLE_RATE, CorpusError, Source
from stemprover.engine.train.corpus.words import analyse_word, sing, sing_words, syllables

pyworld = pytest.importorskip("pyworld", reason="pyworld comes with the extra train")
FORMANTS_HZ = (700.0, 1200.0, 2600.0)


def vowel(hz: float, seconds: float, formants_hz: tuple[float, ...] = FORMANTS_HZ) -> np.ndarray:
    """A pulse train at `hz` through resonances with a width of 100 Hz, and a little breath: (T,), peak 0.5."""
    length = int(seconds * SAMPLE_RATE)
    phase = np.cumsum(np.full(length, hz / SAMPLE_RATE))
    audio = np.diff(np.floor(phase), prepend=0.0) + 0.002 * np.random.default_rng(0).standard_normal(length)
    for formant in formants_hz:
        radius = np.exp(-np.pi * 100 / SAMPLE_RATE)
        audio = lfilter([1.0], [1, -2 * radius * np.cos(2 * np.pi * formant / SAMPLE_RATE), radius**2], audio)
    fade = np.clip(np.minimum(np.arange(length), np.arange(length)[::-1]) / 1000, 0, 1)
    return 0.5 * fade * audio / np.abs(audio).max()


def another_singer(audio: np.ndarray, rng: np.random.Generator, singer: Singer | None = None) -> np.ndarray:
    """A vocal stem as one other singer, random or given, would sing it: (2, T)."""
    return resynthesise(audio, [rng], None if singer is None else [singer])[0]


def pitch_hz(audio: np.ndarray) -> np.ndarray:
    """Pitch of the voiced frames of (2, T)."""
    f0 = pyworld.harvest(audio.mean(axis=0).astype(np.float64), SAMPLE_RATE, f0_floor=60, f0_ceil=900)[0]
    return f0[f0 > 0]


def first_formant_hz(audio: np.ndarray) -> float:
    """The peak between 350 and 1000 Hz of the mean spectral envelope of (2, T)."""
    word = analyse_word(audio.mean(axis=0))
    envelope = np.log(word.envelope[word.voiced]).mean(axis=0)
    hz = np.linspace(0, SAMPLE_RATE / 2, len(envelope))
    inside = (hz > 350) & (hz < 1000)
    return float(hz[inside][np.argmax(envelope[inside])])


@pytest.mark.parametrize(("semitones", "formant"), [(5.0, 1.0), (-4.0, 1.25), (0.0, 0.8)])
def test_pitch_and_formants_change_independently_as_requested(semitones: float, formant: float) -> None:
    audio = vowel(150.0, 0.8)
    out = another_singer(audio, np.random.default_rng(0), Singer(formant=formant, semitones=semitones))
    assert out.shape == (2, len(audio))
    assert out.dtype == np.float32
    shift = 12 * np.log2(np.median(pitch_hz(out)) / 150)
    assert shift == pytest.approx(semitones, abs=0.1)
    assert first_formant_hz(out) == pytest.approx(first_formant_hz(np.stack([audio] * 2)) * formant, rel=0.06)
    assert np.sqrt(np.mean(out**2)) == pytest.approx(np.sqrt(np.mean(audio**2)), rel=0.01)


def test_breath_adds_noise_and_keeps_the_pitch() -> None:
    between = []
    for breath in (0.0, 1.0):
        out = another_singer(vowel(200.0, 0.7), np.random.default_rng(0), Singer(breath=breath)).mean(axis=0)
        power = np.abs(np.fft.rfft(out * np.hanning(len(out)))) ** 2
        hz = np.fft.rfftfreq(len(out), 1 / SAMPLE_RATE)
        off = np.abs(hz / 200 - np.rint(hz / 200)) > 0.25
        inside = (hz > 1000) & (hz < 8000)
        between.append(power[inside & off].sum() / power[inside].sum())
        assert np.median(pitch_hz(np.stack([out, out]))) == pytest.approx(200, rel=0.01)
    assert between[1] > 2 * between[0]


def test_consonants_stay_sharp() -> None:
    audio = np.concatenate([vowel(180.0, 0.6), np.zeros(8820), vowel(180.0, 0.6)])
    rng = np.random.default_rng(1)
    at = int(0.7 * SAMPLE_RATE)
    audio[at : at + 400] += np.diff(0.3 * rng.standard_normal(401))  # a click of 9 ms, like a t
    out = another_singer(audio, rng, Singer(semitones=4.0, formant=1.1)).mean(axis=0)
    click = slice(at + 20, at + 380)
    assert np.corrcoef(out[click], audio[click])[0, 1] > 0.95


def test_a_seed_decides_the_singer_and_the_stereo_is_coherent() -> None:
    audio = np.stack([vowel(220.0, 1.2), 0.8 * vowel(220.0, 1.2)])
    before = audio.copy()
    one, same, other = (another_singer(audio, np.random.default_rng(seed)) for seed in (4, 4, 5))
    np.testing.assert_array_equal(one, same)
    np.testing.assert_array_equal(audio, before)
    assert not np.allclose(one, other)
    assert np.isfinite(other).all()
    assert np.corrcoef(one)[0, 1] > 0.5, "the channels are unrelated"


@pytest.mark.parametrize("length", [0, 100, 30_000])
def test_silence_stays_silent_at_any_length(length: int) -> None:
    out = another_singer(np.zeros((2, length), np.float32), np.random.default_rng(0))
    np.testing.assert_array_equal(out, np.zeros((2, length)))


def test_blocks_of_long_stems_are_joined_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(singers, "_BLOCK_S", (1.5, 3.0))
    audio = np.tile(np.concatenate([vowel(150.0, 0.9), np.zeros(4410)]), 7)
    cuts = singers._cuts(audio)
    assert cuts[0] == 0
    assert cuts[-1] == len(audio)
    assert all(1.5 <= seconds <= 3 for seconds in np.diff(cuts[:-1]) / SAMPLE_RATE)
    assert all(np.abs(audio[cut : cut + 800]).max() < 0.01 for cut in cuts[1:-1])
    out = another_singer(audio, np.random.default_rng(0), Singer(semitones=2.0)).mean(axis=0)
    level = np.sqrt(np.mean(out.reshape(7, -1) ** 2, axis=1))
    assert level.max() < 1.1 * level.min(), "blocks differ in level"


def test_a_sung_note_has_its_pitch_and_length() -> None:
    word = analyse_word(vowel(120.0, 0.4))
    for consonants in (False, True):
        out = sing(word, -12.0, 40_000, -14.0, consonants=consonants, vibrato=(0.0, 5.0))
        assert out.shape == (40_000,)
        f0 = pitch_hz(np.stack([out, out]))
        assert 12 * np.log2(np.median(f0[100:]) / 440) == pytest.approx(-12.0, abs=0.05)
        assert len(f0) * singers.FRAME_S > 0.8
    with pytest.raises(ValueError, match="cannot be sung"):
        sing(analyse_word(np.zeros(8000)), 0.0, 40_000, 0.0)


def test_frames_without_an_aperiodicity_are_finite() -> None:
    word = analyse_word(vowel(120.0, 0.4))
    word.noise[:5] = np.nan  # as D4C gives for digital silence
    assert np.isfinite(sing(word, -12.0, 20_000, -12.0, consonants=True)).all()


def test_words_are_cut_into_syllables_and_hiss_has_none() -> None:
    word = np.concatenate([vowel(130.0, 0.3), np.zeros(4410), vowel(150.0, 0.25)])
    assert len(syllables(analyse_word(word))) == 2
    hiss = 0.2 * np.diff(np.random.default_rng(0).standard_normal(20_000))
    assert syllables(analyse_word(hiss)) == []


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    folder = tmp_path_factory.mktemp("clips")
    paths = tuple(folder / f"{number}.wav" for number in range(7))
    for number, path in enumerate(paths):
        sf.write(path, vowel(110.0 + 5 * number, 0.25, (400 + 60 * number, 1500, 2500)), SAMPLE_RATE)
    return paths


def test_words_are_sung_to_a_melody(clips: tuple[Path, ...]) -> None:
    words = [sf.read(clip)[0] for clip in clips]
    one, same, other = (sing_words(words, np.random.default_rng(seed), 3 * SAMPLE_RATE) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)
    assert one.shape == (2, 3 * SAMPLE_RATE)
    assert np.isfinite(one).all()
    assert np.abs(one).max() == pytest.approx(0.8, abs=0.01)
    assert len(np.unique(np.rint(12 * np.log2(pitch_hz(one) / 440)))) >= 3, "a melody has several notes"
    with pytest.raises(CorpusError, match="3 of 3"):
        sing_words(words[:3], np.random.default_rng(0), SAMPLE_RATE)


@pytest.fixture
def sources(tmp_path: Path, clips: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch) -> list[Source]:
    """Songs and voices, some held out, with their own cache and short tracks."""
    monkeypatch.setenv("STEMPROVER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(singing, "TRACK_S", (1.0, 1.5))
    monkeypatch.setattr(singing, "SINGERS_PER_SONG", 2)
    sf.write(tmp_path / "song.wav", vowel(200.0, 0.6), SAMPLE_RATE)
    sf.write(tmp_path / "band.wav", vowel(80.0, 2.0), SAMPLE_RATE)
    song, band = (tmp_path / "song.wav",), (tmp_path / "band.wav",)
    return [
        Source("alpha/vocals", "vocals", "song", "alpha", "CC0-1.0", "train", song),
        Source("alpha/accompaniment", "accompaniment", "song", "alpha", "CC0-1.0", "train", band),
        Source("beta/accompaniment", "accompaniment", "song", "beta", "CC0-1.0", "train", band),
        Source("game/music", "accompaniment", "music", "game", "GPL-2", "train", band),
        Source("francium/vocals", "vocals", "song", "francium", "CC0-1.0", "valid", song),
        Source("klettres/de", "vocals", "voice", "klettres/de", "GPL-2+", "train", clips),
        Source("klettres/it", "vocals", "voice", "klettres/it", "GPL-2+", "test", clips),
        Source("klettres/few", "vocals", "voice", "klettres/few", "GPL-2+", "train", clips[:3]),
        Source("hedgewars-voice/Robot", "vocals", "voice", "hedgewars-voice/Robot", "GFDL-1.3", "train", clips),
    ]


def test_singing_is_made_once_and_keeps_its_split(sources: list[Source], tmp_path: Path) -> None:
    assert singing_sources(sources) == []
    lines: list[str] = []
    made = [path for source in sources for path in make_singing(source, say=lines.append)]
    assert len(made) == singing.SINGERS_PER_SONG + 2 * singing.TRACKS_PER_VOICE
    assert any("klettres/few" in line and "3 of 3" in line for line in lines)
    found = singing_sources(sources)
    assert sorted(path for source in found for path in source.parts) == sorted(made)
    train = {source.name for source in found if source.split == "train"}
    resung, words = (
        (f"resung/alpha-vocals-{n}" for n in (1, 2)),
        (f"sung-klettres/klettres-de-{n}" for n in (1, 2)),
    )
    assert train == {*resung, *words}
    assert {source.split for source in found if "it" in source.name} == {"test"}
    assert all(0.5 <= source.length_samples / SAMPLE_RATE <= 1.5 for source in found)
    assert not list((tmp_path / "cache").rglob("*.part"))
    bytes_before = [path.read_bytes() for path in made]
    assert len(set(bytes_before)) == len(made)
    assert [path for source in sources for path in make_singing(source)] == []
    made[1].unlink()
    made[-1].unlink()
    for source in sources:
        make_singing(source, say=lines.append)
    assert [path.read_bytes() for path in made] == bytes_before


def test_vocals_are_drawn_with_the_configs_weights(sources: list[Source]) -> None:
    for path in (path for source in sources for path in singing.singing_paths(source)):
        path.parent.mkdir(exist_ok=True, parents=True)
        sf.write(path, vowel(300.0, 2.0), SAMPLE_RATE)
    train = [source for source in [*sources, *singing_sources(sources)] if source.split == "train"]
    kind = {source.name: source.kind for source in train}

    def kinds(config: RemixConfig) -> tuple[list[str], list[dict]]:
        remixer = Remixer(train, SAMPLE_RATE // 2, config)
        infos = [remixer.draw(np.random.default_rng([9, item])).info for item in range(120)]
        return [kind[info["vocals"]] for info in infos], infos

    drawn, infos = kinds(RemixConfig())
    assert drawn.count("singing") / 120 == pytest.approx(0.45, abs=0.12)
    assert drawn.count("song") / 120 == pytest.approx(0.30, abs=0.12)
    originals = [kind[info["vocals"]] for info in infos if info["original_pairing"]]
    assert set(originals) == {"song"}
    assert {info["band"] for info in infos} == {"alpha/accompaniment", "beta/accompaniment", "game/music"}
    assert set(kinds(RemixConfig(singers=(1.0, 0.0, 0.0)))[0]) == {"singing"}
    with pytest.raises(CorpusError, match="not weights"):
        RemixConfig(singers=(0.0, 0.0, 0.0))


def test_bad_settings_give_clear_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CorpusError, match=r"formant=3\.0"):
        Singer(formant=3.0)
    with pytest.raises(SystemExit):
        singing.main(["--share", "3/2"])
    assert "--share 3/2" in capsys.readouterr().err
