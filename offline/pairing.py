"""Finds the mix of each song among many: by length, by name and by ear.

Only a mix of the stems' rate and length can be theirs. Among those, names and the rhythm of the levels say which to try
first; what decides is the proof (proof.py) that a stem of the song is in the mix.
"""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from itertools import pairwise
from pathlib import Path

import numpy as np

from ..engine.errors import AudioFileError, MixLeftOutError, MixMismatchError
from ..engine.mix.locate import MAX_OFFSET_S
from ..engine.mix.statistics import MIN_POWER
from ..engine.stem_names import MIX, song_of, stem_of
from .audiofile import AudioInfo, AudioReader, probe
from .pair import check_match
from .plan import BatchJob, BatchPlan, audio_below
from .proof import prove

LIKE = 0.6  # names that are at least so like each other are tried before anything is listened to
MOST_BY_NAME, MOST_BY_EAR, MOST_STEMS = 3, 3, 3  # mixes that are tried for a song, and stems with each
AUDIBLE_DB = -30.0  # relative to the loudest stem of the song: a silent stem is in every mix
BLOCK_S, EDGES_HZ = 0.1, np.geomspace(100.0, 8000.0, 13)


@dataclass(frozen=True)
class Song:
    """The stems of one song, judging by the names of files and folders. name: for people. words: of its name alone."""

    name: str
    words: tuple[str, ...]
    jobs: tuple[BatchJob, ...]


@dataclass(frozen=True)
class Pairing:
    """A plan whose jobs have their mixes, and the songs for which there is none."""

    plan: BatchPlan
    songs: int
    without: tuple[Song, ...]


def pair_with_mixes(
    plan: BatchPlan, folder: Path, *, require_mix: bool = False, progress: Callable[[float, float], None] | None = None
) -> Pairing:
    """Give each job of a plan the mix of its song, from this folder and from the song's own.

    require_mix: a stem without a mix becomes one of the plan's failures. progress: called with the number of songs that
    are done, and of all. Raises AudioFileError if there are no audio files in the folder.
    """
    elsewhere = _readable(path for path, _ in audio_below(folder, plan.folder))
    songs = find_songs(plan.jobs)
    jobs, without = dict[BatchJob, BatchJob](), list[Song]()
    for number, song in enumerate(songs):
        if progress is not None:
            progress(number, len(songs))
        beside, stems = _split(song)
        mix = _mix_of(replace(song, jobs=stems), _readable(job.source for job in beside), elsewhere)
        jobs |= {job: replace(job, mix=mix) for job in stems}
        if mix is None:
            without.append(replace(song, jobs=stems))
    inputs = tuple(dict.fromkeys([*plan.inputs, *(job.mix for job in jobs.values() if job.mix)]))
    kept = tuple(jobs[job] for job in plan.jobs if job in jobs)
    failures = plan.failures
    if require_mix:
        missing = MixLeftOutError(f"no mix of this song in {folder}; nothing was written")
        failures += tuple((job.source, missing) for job in kept if job.mix is None)
        kept = tuple(job for job in kept if job.mix is not None)
    return Pairing(replace(plan, jobs=kept, inputs=inputs, failures=failures), len(songs), tuple(without))


def find_songs(jobs: Sequence[BatchJob]) -> list[Song]:
    """The jobs by song: files with names of stems (`song/vocals.wav`, or `song/vocals/take 1.wav`) by their folder, and
    names with more in them (`1_song_(Vocals)_model.wav`) by what else they say."""
    songs: dict[tuple[Path, str], list[BatchJob]] = {}
    for job in jobs:
        songs.setdefault(_song_key(job.source), []).append(job)
    return [
        Song(found[0].source.stem, tuple(name.split()), tuple(found))
        if name
        else Song(folder.resolve().name, tuple(_words(folder.resolve().name)), tuple(found))
        for (folder, name), found in songs.items()
    ]


def _song_key(path: Path) -> tuple[Path, str]:
    folder, name = song_of(path)
    if not _words(name):
        return folder, ""
    if stem_of(path.name) is None and stem_of(folder.name) not in (None, MIX):
        return folder.parent, ""
    return folder, " ".join(_words(name))


def _split(song: Song) -> tuple[tuple[BatchJob, ...], tuple[BatchJob, ...]]:
    """The mixes that lie among the stems of a song, as data sets have them, and the stems."""
    mixes = tuple(job for job in song.jobs if stem_of(job.source.name) == MIX)
    return ((), song.jobs) if len(mixes) == len(song.jobs) else (mixes, tuple(j for j in song.jobs if j not in mixes))


def _words(name: str) -> list[str]:
    """The words of a name without case and accents; without a number before them, as separators write."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c)).casefold()
    words = "".join(c if c.isalnum() else " " for c in plain).split()
    return words[1:] if len(words) > 1 and words[0].isdigit() else words


@dataclass
class _Mix:
    """A file that may be the mix of a song."""

    info: AudioInfo
    words: list[str]
    levels: np.ndarray | None = None

    def fits(self, stem: AudioInfo) -> bool:
        try:
            check_match(stem, self.info)
        except MixMismatchError:
            return False
        return True


def _readable(paths: Iterable[Path]) -> list[_Mix]:
    """Those of the files that can be read."""
    found = []
    for path in paths:
        folder, name = _song_key(path)
        with contextlib.suppress(AudioFileError):
            found.append(_Mix(probe(path), _words(name or folder.resolve().name)))
    return found


def _mix_of(song: Song, beside: Sequence[_Mix], elsewhere: Sequence[_Mix]) -> Path | None:
    """The first mix that a stem of the song is proved to be in."""
    stems = _audible(song.jobs)
    if not stems:
        return None
    tried: list[_Mix] = []
    fitting = [mix for mix in elsewhere if mix.fits(stems[0])]
    others = sorted(fitting, key=lambda mix: likeness(song.words, mix.words), reverse=True)
    named = [mix for mix in others[:MOST_BY_NAME] if likeness(song.words, mix.words) >= LIKE]
    for mix in [*(m for m in beside if m.fits(stems[0])), *named]:
        tried.append(mix)
        if _is_proved(stems, mix):
            return mix.info.path
    rest = [mix for mix in others if mix not in tried]
    if len(rest) > MOST_BY_EAR:
        heard = _levels(stems)
        rest.sort(key=lambda mix: _in_rhythm(heard, mix), reverse=True)
    return next((mix.info.path for mix in rest[:MOST_BY_EAR] if _is_proved(stems, mix)), None)


def _audible(jobs: Sequence[BatchJob]) -> list[AudioInfo]:
    """The stems that can prove a mix, the loudest first. Files that cannot be read are reported where they are
    repaired."""
    powers: dict[Path, tuple[float, AudioInfo]] = {}
    for job in jobs:
        with contextlib.suppress(AudioFileError):
            info = probe(job.source)
            with AudioReader(info) as reader:
                sums = [float(np.square(reader.codec.decode(block)).sum(dtype=np.float64)) for block in reader.blocks()]
            powers[job.source] = sum(sums) / max(1, info.samples * info.channels), info
    found = sorted((one for one in powers.values() if one[0] > MIN_POWER), key=lambda one: one[0], reverse=True)
    return [info for power, info in found if power > found[0][0] * 10 ** (AUDIBLE_DB / 10)]


def likeness(song: Sequence[str], mix: Sequence[str]) -> float:
    """How like two names are, 0 to 1, by their words. All words of the mix in the song's name are enough, because
    separators add their own."""
    if not mix:
        return 0.0
    contained = len(set(song) & set(mix)) / len(set(mix))
    return max(contained, SequenceMatcher(None, " ".join(song), " ".join(mix), autojunk=False).ratio())


def _is_proved(stems: Sequence[AudioInfo], mix: _Mix) -> bool:
    """Whether one of the loudest stems is found in the mix."""
    for stem in stems[:MOST_STEMS]:
        try:
            if prove(stem, mix.info).found:
                return True
        except AudioFileError:
            continue
    return False


def _levels(files: Sequence[AudioInfo]) -> np.ndarray:
    """How the levels of the sum of some files rise and fall: (bands, blocks of BLOCK_S), of unit norm."""
    rate = files[0].sample_rate
    size = round(BLOCK_S * rate)
    edges = np.searchsorted(np.fft.rfftfreq(size, 1.0 / rate), EDGES_HZ)
    total = np.zeros((len(edges) - 1, 0))
    for info in files:
        with AudioReader(info) as reader:
            blocks = [reader.codec.decode(block).mean(axis=0) for block in reader.blocks(size)]
        whole = [block for block in blocks if len(block) == size] or [np.zeros(size, np.float32)]
        spectra = np.abs(np.fft.rfft(whole, axis=-1)) ** 2
        power = np.array([spectra[:, low:high].sum(axis=1) for low, high in pairwise(edges)])
        longer, shorter = (total, power) if total.shape[1] > power.shape[1] else (power, total)
        longer[:, : shorter.shape[1]] += shorter
        total = longer
    levels = np.log10(total + 1e-4 * total.mean(axis=1, keepdims=True) + 1e-12)
    steps = np.diff(levels, axis=1)
    steps -= steps.mean(axis=1, keepdims=True)
    found: np.ndarray = steps / (np.linalg.norm(steps) + 1e-12)
    return found


def _in_rhythm(heard: np.ndarray, mix: _Mix) -> float:
    """How well the levels of a song's stems agree with a mix's, at the best offset."""
    if mix.levels is None:
        try:
            mix.levels = _levels([mix.info])
        except AudioFileError:
            mix.levels = np.zeros((len(EDGES_HZ) - 1, 1))
    reach = round(MAX_OFFSET_S / BLOCK_S)
    padded = np.pad(mix.levels, ((0, 0), (reach, reach + max(0, heard.shape[1] - mix.levels.shape[1]))))
    return max(float(np.sum(heard * padded[:, lag : lag + heard.shape[1]])) for lag in range(2 * reach + 1))
