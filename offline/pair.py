"""A stem and its mix: checked against each other and aligned, once for everything that is done with them."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..engine.errors import MixLeftOutError, MixMismatchError
from ..engine.mix.fit import MixFit
from ..engine.mix.locate import MAX_OFFSET_S
from ..engine.stem_names import check_role, role_of
from .audiofile import AudioInfo, check_finite, clock, probe
from .mix_reader import FittedMix, SummedAudio, files_of
from .proof import SAME_LENGTH_S, mix_notes, prove

MIX_PROJECTION = 0.8  # of the stem in what is more likely the mix than its rest (MixFit.projection)


@dataclass(frozen=True)
class StemAndMix:
    """A stem and, if there is one, the mix it was separated from.

    fit: how the mix fits the stem. notes: what users should know about it, such as a corrected offset. elapsed_s: the
    time that checks and proof took. role: what the stem is, one of stem_names.ROLES; None if it is not known.
    """

    stem: AudioInfo
    mix: AudioInfo | None = None
    fit: MixFit | None = None
    notes: tuple[str, ...] = ()
    elapsed_s: float = 0.0
    role: str | None = None

    @classmethod
    def open(
        cls, stem: Path | AudioInfo, mix: Path | None = None, *, rest: Path | None = None, role: str | None = None
    ) -> StemAndMix:
        """Check and align two files; the stem may have been probed already.

        rest: in place of the mix, all of the song but the stem, in step with it: their sum is the mix.
        role: what the stem is, if neither its file's name nor its folder's says so.
        Raises AudioFileError, MixMismatchError, and OptionError for an unknown role.
        """
        assert mix is None or rest is None
        started_s = time.perf_counter()
        stem_info = stem if isinstance(stem, AudioInfo) else probe(stem)
        role = check_role(role) or role_of(stem_info.path.name, stem_info.path.parent.name)
        if rest is not None:
            rest_info = probe(rest, "the rest of the song")
            check_match(stem_info, rest_info, "the rest of the song", is_rest=True)
            check_finite(rest_info)
            check_finite(stem_info)
            same, fit = prove(stem_info, rest_info), MixFit.shifted(stem_info.channels, 0)
            hint = f"{rest.name} contains this stem: if it is the mix, pass it with --mix"
            hints = (hint,) if same.found and same.projection > MIX_PROJECTION else ()
            total = SummedAudio.of([stem_info, rest_info])
            return cls(stem_info, total, fit, hints, time.perf_counter() - started_s, role)
        if mix is None:
            check_finite(stem_info)
            return cls(stem_info, elapsed_s=time.perf_counter() - started_s, role=role)
        mix_info = probe(mix, "the mix")
        check_match(stem_info, mix_info)
        check_finite(mix_info)
        check_finite(stem_info)
        fit = prove(stem_info, mix_info)
        notes = tuple(mix_notes(fit, stem_info, mix_info))
        return cls(stem_info, mix_info, fit, notes, time.perf_counter() - started_s, role)

    @property
    def paths(self) -> list[Path]:
        """The files, none of which an output may replace."""
        return list(dict.fromkeys([self.stem.path, *(part.path for part in (files_of(self.mix) if self.mix else ()))]))

    def prepare(self, audio: np.ndarray) -> np.ndarray:
        """The stem's samples (C, n) as they are repaired (MixFit.prepare)."""
        return audio if self.fit is None else self.fit.prepare(audio)

    def restore(self, repaired: np.ndarray, original: np.ndarray) -> np.ndarray:
        """Repaired samples (C, n) as the stem has them (MixFit.restore)."""
        return repaired if self.fit is None else self.fit.restore(repaired, original)

    @property
    def mix_left_out(self) -> bool:
        """Whether there is a mix that does not fit."""
        return self.fit is not None and not self.fit.found

    def require_mix(self) -> None:
        """Raises MixLeftOutError if there is a mix that does not fit."""
        if self.mix_left_out:
            raise MixLeftOutError(f"{self.notes[0]}; nothing was written")

    def open_mix(self, *, at_own_level: bool = False) -> FittedMix | None:
        """Read the mix as the stem needs it; None without a mix, or if it does not fit.

        at_own_level: leave the mix as loud as it is, even if the stem was turned up or down.
        """
        if self.mix is None or self.fit is None or not self.fit.found:
            return None
        fit = replace(self.fit, gains=(1.0,) * len(self.fit.gains)) if at_own_level else self.fit
        return FittedMix(self.stem, self.mix, fit)


def check_match(stem: AudioInfo, other: AudioInfo, what: str = "", *, is_rest: bool = False) -> None:
    """Raises MixMismatchError if another file differs from the stem in sample rate, channels or length.

    what: the other file, in words; the mix by default. is_rest: it is the rest of the song, and has to be in step.
    """
    if other.sample_rate != stem.sample_rate:
        raise MixMismatchError(
            f"{other.path} has {other.sample_rate} Hz and {stem.path} has {stem.sample_rate} Hz; "
            f"convert {what or 'the mix'} to {stem.sample_rate} Hz"
        )
    if other.channels != stem.channels and ((what and not is_rest) or {other.channels, stem.channels} != {1, 2}):
        raise MixMismatchError(
            f"{other.path} has {_count(other.channels)} and {stem.path} has {_count(stem.channels)}; "
            f"convert {what or 'the mix'} to {_count(stem.channels)}"
        )
    if abs(other.samples - stem.samples) > (SAME_LENGTH_S if is_rest else MAX_OFFSET_S) * stem.sample_rate:
        hint = (
            f"use {what} with the same start and end"
            if what
            else f"use the mix this stem was separated from; both must start and end within {MAX_OFFSET_S:g} s"
        )
        raise MixMismatchError(
            f"{other.path} is {clock(other.duration_s)} long and {stem.path} is {clock(stem.duration_s)} long; {hint}"
        )


def _count(channels: int) -> str:
    return {1: "1 channel (mono)", 2: "2 channels (stereo)"}.get(channels, f"{channels} channels")
