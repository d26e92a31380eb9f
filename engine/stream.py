"""Hops of a stem (and its mixture) in, hops of the change that repairs it out: the model's own stream at 44.1 kHz.

The state of a stream is one dataclass that goes in and comes out. Any split of the hops gives the same change.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from .dsp.channels import from_pairs, to_pairs
from .dsp.linked import link
from .dsp.stft import AnalysisState, Stft, SynthesisState
from .dsp.wiener import MEMORY, WienerFilter, WienerState
from .errors import OptionError
from .features import FeatureMaker, Features, FeatureState
from .runtime import ModelState, Runtime
from .trust import Gate, over_bins

#: How far a stem is masked (`leak.Leak.masked`) to the part of the Wiener filter's change that counts: none up to the
#: first, all from the second on.
_MASKED = (0.2, 0.5)


@dataclass(frozen=True)
class Shares:
    """For a stem that a separator's mask left of its song, how much counts of what is found on the stem, on the rest of
    the song, and by the multichannel Wiener filter (wiener.py).

    Mixture less stem is repaired as a stem is, and what changes there is turned round: what a mask gave to one of the
    two it has taken from the other. Each errs in its own way, so together they err less, in twice the time, unless
    `rest` is 0. The filter's part hangs on how far the stem is masked, and not on the gate. Raises OptionError for
    numbers that are not 0 to 1.
    """

    stem: float
    rest: float
    wiener: float

    def __post_init__(self) -> None:
        for name, share in vars(self).items():
            if not 0.0 <= share <= 1.0:
                raise OptionError(f"{name}={share:g} is out of range; give a share of 0 to 1")


@dataclass(frozen=True)
class SideState:
    """What features, model and gate remember of one side of the song, the stem or all else."""

    features: FeatureState
    model: ModelState
    gate: np.ndarray


@dataclass(frozen=True)
class DeltaState:
    """Everything between two blocks of one stream. `sides`: the stem's, and the rest's where the stream hears it too;
    `wiener`: the filter's, where there is one; `quiet` counts the silent hops up to now; `running` is False while the
    model sleeps."""

    stem: AnalysisState
    mix: AnalysisState
    synthesis: SynthesisState
    sides: tuple[SideState, ...]
    wiener: WienerState | None
    quiet: int
    running: bool


class _Late(NamedTuple):
    """Spectra (B, 2, F, n) of the stem that a change belongs to, and of the last m frames, (B, 2, F, m) both, the
    mixture and the largest magnitudes that they may come to; those before still fill the look-ahead and have no
    change."""

    stem: np.ndarray
    mix: np.ndarray
    limit: np.ndarray


@dataclass(frozen=True)
class DeltaStream:
    """The change that repairs a stem, `delay_samples` later than the stem.

    The model sleeps when nothing but digital silence is within its look-ahead, and starts afresh with the first
    sound: by a rule that looks at single hops, so that it does not depend on how the stream was cut into blocks. Where
    `gate` is None, all of the model's change is let through. `linked`: more than two channels belong together.

    shares: with the mixture, of what the change is made (`Shares`); None: what is found on the stem, and all of it. The
    rest sleeps with the stem.
    """

    runtime: Runtime
    steps: int
    recompute_control: bool = False
    gate: Gate | None = field(default_factory=Gate)
    linked: bool = True
    shares: Shares | None = None
    stft: Stft = field(init=False)
    maker: FeatureMaker = field(init=False)
    wiener: WienerFilter = field(init=False)

    def __post_init__(self) -> None:
        bundle = self.runtime.bundle
        object.__setattr__(self, "stft", Stft(bundle.stft))
        object.__setattr__(self, "maker", FeatureMaker(bundle.latent, bundle.stft))
        object.__setattr__(self, "wiener", WienerFilter(bundle.latent.layout))

    @property
    def hop(self) -> int:
        """Samples in a hop."""
        return self.stft.config.hop

    @property
    def delay_samples(self) -> int:
        """How much later than the stem the change comes, when both move in whole hops."""
        return self.runtime.bundle.lookahead * self.hop + self.stft.config.delay_samples

    @property
    def warmup_samples(self) -> int:
        """Sound before a place that can influence the model there: the receptive field of all steps and of the window,
        whole hops."""
        field_ = self.runtime.bundle.receptive_field
        frames = field_["control"] + self.steps * field_["denoiser"] + self.stft.config.n_fft // self.hop
        return frames * self.hop

    @property
    def memory_samples(self) -> int:
        """Sound before that, which the model's features remember, whole hops: heard, too, it makes the model what it
        would be."""
        return self.maker.memory_frames * self.hop

    @property
    def history_samples(self) -> int:
        """Sound before a place that has any influence there, whole hops. The Wiener filter's memory is the longest, and
        may as well begin anew."""
        remembered = max(self.memory_samples, MEMORY * self.hop if self._filters else 0)
        return remembered + self.warmup_samples

    @property
    def _filters(self) -> bool:
        return self.shares is not None and self.shares.wiener > 0.0

    @property
    def _hears_rest(self) -> bool:
        return self.shares is not None and self.shares.rest > 0.0

    def start(self, batch: int = 1) -> DeltaState:
        """State before the first sample of a stream of `batch` channel pairs that sound and pause together."""
        return DeltaState(
            stem=self.stft.start_analysis(2 * batch),
            mix=self.stft.start_analysis(2 * batch),
            synthesis=self.stft.start_synthesis(2 * batch),
            sides=self._start_sides(batch),
            wiener=self.wiener.start(batch) if self._filters else None,
            quiet=self._sleep_after,
            running=False,
        )

    def process(
        self, stem: np.ndarray, mix: np.ndarray | None, state: DeltaState, *, listen_only: bool = False
    ) -> tuple[np.ndarray, DeltaState]:
        """Stem and mixture (B, 2, n * hop) to the change (B, 2, n * hop), and the state after it. `listen_only`: this
        sound is remembered, the model does not run, and the change is zero."""
        change, _, after = self._spectra(stem, mix, state, listen_only)
        return self._synthesised(change, after)

    def _spectra(
        self, stem: np.ndarray, mix: np.ndarray | None, state: DeltaState, listen_only: bool
    ) -> tuple[np.ndarray, np.ndarray, DeltaState]:
        """Spectra of the change and of the stem that it belongs to, (B, 2, F, n) both, and the state after them but for
        the synthesis."""
        batch, _, length = stem.shape
        flat = stem.reshape(2 * batch, length)
        y, stem_state = self.stft.analysis(flat, state.stem)
        y = y.reshape(batch, 2, *y.shape[1:])
        m, mix_state = None, state.mix
        if mix is not None:
            m, mix_state = self.stft.analysis(mix.reshape(2 * batch, length), state.mix)
            m = m.reshape(y.shape)
        places, wiener = None, state.wiener
        if m is not None and wiener is not None:
            places, wiener = self.wiener.measure(y, m - y, wiener)
        sounding = np.any(flat.reshape(2 * batch, -1, self.hop) != 0.0, axis=(0, 2))
        change, before = np.zeros_like(y), np.zeros_like(y)
        sides, quiet, running = state.sides, state.quiet, state.running
        for start, stop, after, awake in _runs(sounding, quiet, self._sleep_after):
            quiet = after
            if not awake:
                running = False
                continue
            if not running:
                sides, running = self._start_sides(batch), True
            part = slice(start, stop)
            heard, song = y[..., part], None if m is None else m[..., part]
            if listen_only:
                heard, song = self._last(heard), None if song is None else self._last(song)
                listened = zip(self._sounds(heard, song), sides, strict=False)
                kept = tuple(replace(s, features=self.maker.listen(x, song, s.features)) for x, s in listened)
                sides = kept + sides[len(kept) :]
                continue
            here = None if places is None else places[..., part]
            change[..., part], before[..., part], sides = self._from_sides(heard, song, sides, here)
        return change, before, DeltaState(stem_state, mix_state, state.synthesis, sides, wiener, quiet, running)

    def _last(self, spectrum: np.ndarray) -> np.ndarray:
        """As many frames as the features remember."""
        return spectrum[..., -self.maker.memory_frames :]

    def _sounds(self, heard: np.ndarray, song: np.ndarray | None) -> tuple[np.ndarray, ...]:
        """The stem, and the rest of the song where that is heard too."""
        return (heard,) if song is None or not self._hears_rest else (heard, song - heard)

    def _from_sides(
        self, heard: np.ndarray, song: np.ndarray | None, sides: tuple[SideState, ...], places: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, tuple[SideState, ...]]:
        """Spectra (B, 2, F, n) of what a chunk's change is, and of the stem that it belongs to; and the states after
        it. `places`: the Wiener filter's, of the chunk's own frames, which are a look-ahead later."""
        found = [self._side(x, song, side) for x, side in zip(self._sounds(heard, song), sides, strict=False)]
        change, late, masked, _ = found[0]
        after = tuple(side for *_, side in found) + sides[len(found) :]
        if self.shares is None or song is None:
            return change, late.stem, after
        ready = slice(change.shape[-1] - late.limit.shape[-1], None)
        before = late.stem[..., ready]
        wanted = before + self.shares.stem * change[..., ready]
        if len(found) > 1:
            wanted -= self.shares.rest * found[1][0][..., ready]
        if places is not None:
            share = self.shares.wiener * np.interp(masked[..., ready], _MASKED, (0.0, 1.0)).astype(np.float32)
            wanted += share[:, None, None] * self.wiener.change(before, late.mix, places[..., ready])
        change[..., ready] = _limited(before, wanted, late.limit)
        return change, late.stem, after

    def _side(
        self, heard: np.ndarray, song: np.ndarray | None, side: SideState
    ) -> tuple[np.ndarray, _Late, np.ndarray, SideState]:
        """The gated change of one of the two sides, what it belongs to, and how far it is masked."""
        made, features = self.maker(heard, song, side.features)
        found, late, model = self._repair(made, side.model, has_mix=song is not None)
        gate = side.gate
        if self.gate is not None:
            share, gate = self.gate(made, gate)
            found *= over_bins(share, self.runtime.bundle.latent.layout)
        return found, late, made.masked, SideState(features, model, gate)

    def _synthesised(self, change: np.ndarray, state: DeltaState) -> tuple[np.ndarray, DeltaState]:
        batch = len(change)
        out, synthesis = self.stft.synthesis(change.reshape(2 * batch, *change.shape[2:]), state.synthesis)
        return out.reshape(batch, 2, -1), replace(state, synthesis=synthesis)

    def process_channels(
        self, stem: np.ndarray, mix: np.ndarray | None, states: list[DeltaState], *, listen_only: bool = False
    ) -> tuple[np.ndarray, list[DeltaState]]:
        """Any number of channels (C, n * hop) to their change. The model hears each pair by itself, so a silent one
        costs no model time; of more than two channels that are `linked` the changes are made one (`linked.link`). One
        state a pair (`channels.pair_count`); `listen_only` as in `process`."""
        stems, mixes = to_pairs(stem), None if mix is None else to_pairs(mix)
        heard = [
            self._spectra(stems[i : i + 1], None if mixes is None else mixes[i : i + 1], state, listen_only)
            for i, state in enumerate(states)
        ]
        changes = [change for change, _, _ in heard]
        if self.linked and len(states) > 1:
            before = np.concatenate([one for _, one, _ in heard])
            changes = np.split(link(before, np.concatenate(changes), len(stem) % 2 == 1), len(states))
        made = [self._synthesised(change, state) for change, (_, _, state) in zip(changes, heard, strict=True)]
        return from_pairs(np.concatenate([part for part, _ in made]), len(stem)), [state for _, state in made]

    def _start_sides(self, batch: int) -> tuple[SideState, ...]:
        bundle = self.runtime.bundle
        gate = (self.gate or Gate()).start(batch, bundle.latent.layout, bundle.lookahead)
        side = SideState(self.maker.start(batch), self.runtime.start(batch, self.steps), gate)
        # No state is ever written into.
        return (side, side) if self._hears_rest else (side,)

    @property
    def _sleep_after(self) -> int:
        return self.stft.config.n_fft // self.hop + self.runtime.bundle.lookahead

    def _repair(
        self, features: Features, model: ModelState, has_mix: bool
    ) -> tuple[np.ndarray, _Late, ModelState]:
        count = features.stem.shape[-1]
        repaired, stem, mix, after = self.runtime.step(features, model, self.recompute_control)
        ready = repaired.shape[-1]
        change, late = np.zeros((2, len(stem), 2, self.stft.config.bins, count), np.complex64)
        if ready == 0:
            none = late[..., :0]
            return change, _Late(late, none, none.real), after
        latent = self.runtime.bundle.latent
        before = latent.decode(stem)
        wanted = latent.decode(repaired)
        song = latent.decode(mix) if has_mix else before
        limit = change_limit(before, song if has_mix else None)
        found = _limited(before, wanted, limit)
        change[..., count - ready :] = found
        late[..., count - ready :] = before
        return change, _Late(late, song, limit), after


def _limited(before: np.ndarray, wanted: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """The change from one to the other (B, 2, F, N), with magnitudes up to the limit, none in silent frames, and only
    numbers. `wanted` is used up."""
    wanted *= np.minimum(1.0, limit / np.maximum(np.abs(wanted), np.float32(1e-20)))
    found: np.ndarray = wanted - before
    found.transpose(0, 3, 1, 2)[~before.any(axis=(1, 2))] = 0.0
    found[~np.isfinite(found)] = 0.0
    return found


def change_limit(stem: np.ndarray, mix: np.ndarray | None) -> np.ndarray:
    """Largest magnitude allowed for each repaired bin (B, 2, F, N), against invented sound.

    With the mixture: its magnitude plus 2 dB, or the stem's own. Without: 12 dB over the stem, or 12 dB under the
    loudest bin of the frame, so that a hole may be filled but nothing sticks out.
    """
    size = np.abs(stem)
    if mix is not None:
        return np.maximum(size, np.float32(1.26) * np.abs(mix))
    return np.maximum(np.float32(4.0) * size, np.float32(0.25) * size.max(axis=2, keepdims=True))


def _runs(sounding: np.ndarray, quiet: int, sleep_after: int) -> list[tuple[int, int, int, bool]]:
    """Split hops where the model falls asleep or wakes: (start, stop, quiet after it, awake). `quiet` counts silent
    hops."""
    runs: list[tuple[int, int, int, bool]] = []
    for n, loud in enumerate(sounding):
        quiet = 0 if loud else quiet + 1
        awake = quiet < sleep_after
        if runs and runs[-1][3] == awake:
            runs[-1] = (runs[-1][0], n + 1, quiet, awake)
        else:
            runs.append((n, n + 1, quiet, awake))
    return runs
