"""What a stream is repaired with: a preset or a blend, and a quality. Choices start in the order in which they came,
load while the audio goes on, and take effect at a position."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from ...engine.auto import preset_for_choice
from ...engine.detect.choice import Choice, LiveChoice
from ...engine.errors import StemProverError
from ...engine.preset import AUTO, Preset, blend_presets, load_preset
from ...engine.stream import CorrectionStream
from ..osc import Code, ProtocolError, StreamFormat
from .model_cache import ModelCache, load_of

#: Gets the position at which a choice takes effect, or the error.
Done = Callable[[int | BaseException], None]


class SupersededError(ProtocolError):
    """A choice that a later one replaced."""


class Player(Protocol):
    """What a selection needs of its stream. Everything is for the event loop's thread but `call`."""

    format: StreamFormat
    closed: bool

    def call(self, act: Callable[..., None], *args: Any) -> None:
        """From another thread: call on the loop's, unless the loop has ended."""

    def future(self) -> asyncio.Future[Any]:
        """Something to wait for, which ends with the stream at the latest."""

    def gone(self) -> ProtocolError:
        """The error for a stream that was closed meanwhile."""

    def use_model(self, model: CorrectionStream, wet: float, then: Done) -> None:
        """Go over to this model."""

    def stop_waiting_for_model(self) -> None:
        """There will be no model."""

    def follow(self, choice: LiveChoice | None) -> None:
        """Have this choice analyse what is played; None for no choice."""


class Selection:
    """preset: in use. name: what was asked for, which may be auto or a blend's. quality: of the sampler. allow: called
    with a quality that is asked for; raises ProtocolError if there is no room for it."""

    def __init__(self, player: Player, models: ModelCache, preset: Preset) -> None:
        self.preset, self.name, self.quality = preset, preset.name, "standard"
        self.allow: Callable[[str], None] = lambda quality: None
        self._player: Player = player
        self._models = models
        self._loop = asyncio.get_running_loop()
        self._setting = asyncio.Lock()  # held while a choice is read and started, so that they keep their order
        self._wanted = (preset, preset.name)
        self._uses = 0

    def begin(self, then: Done) -> None:
        """Load the first preset."""
        self._use(self.preset, then)

    def close(self) -> None:
        """Release the player."""
        self._player = _ClosedPlayer(self._player)

    async def select(self, name: str) -> int:
        """A preset by name, or auto; returns the position at which it takes effect. Raises PresetError."""
        if "/" in name or "\\" in name or name.endswith(".toml"):
            raise ProtocolError(Code.PRESET, f"{name!r} is not a preset's name; /presets lists them")
        async with self._setting:
            preset = await self._read(load_preset, "general" if name == AUTO else name)
            done = self._select(preset, name)
        form = self._player.format
        choice = LiveChoice(form.sample_rate, form.channels, form.has_mix) if name == AUTO else None
        try:
            position = await done
        except SupersededError:
            if self._wanted == (preset, name):  # replaced by another quality, not by another preset
                self._player.follow(choice)
            raise
        self._player.follow(choice)
        return position

    async def blend(self, weights: dict[str, float]) -> int:
        """Several presets; as `select`."""
        async with self._setting:
            preset = await self._read(blend_presets, weights)
            done = self._select(preset, preset.name)
        position = await done
        self._player.follow(None)
        return position

    async def set_quality(self, quality: str) -> int:
        """Steps of the sampler; as `select`."""
        load_of(1, quality, 1.0)
        self.allow(quality)
        async with self._setting:
            before, self.quality = self.quality, quality
            done = self._select(*self._wanted)
        try:
            return await done
        except StemProverError as error:
            if self.quality == quality and not isinstance(error, SupersededError):
                self.quality = before
            raise

    async def follow(self, choice: Choice) -> None:
        """Carries out what a live choice asks for, if auto is still wanted."""
        preset = await self._read(preset_for_choice, choice, self._player.format.has_mix)
        if self._wanted[1] != AUTO or self._player.closed:
            return

        def then(found: int | BaseException) -> None:
            if not isinstance(found, BaseException):
                self.preset = preset

        self._use(preset, then)

    async def _read(self, act: Callable[..., Preset], *args: Any) -> Preset:
        """Presets are files: the loop does not wait for the disk."""
        return await self._loop.run_in_executor(None, act, *args)

    def _select(self, preset: Preset, name: str) -> Coroutine[Any, Any, int]:
        """Starts at once; the coroutine waits until it takes effect."""
        if preset.before or preset.after:
            raise ProtocolError(
                Code.PRESET,
                f"{preset.name} has plugins around the repair, which streams do not run; render files instead",
            )
        done = self._player.future()
        self._wanted = (preset, name)
        self._use(preset, lambda found: settle(done, found))

        async def held() -> int:
            try:
                position: int = await done
            except SupersededError:
                raise
            except StemProverError:
                if self._wanted == (preset, name):
                    self._wanted = (self.preset, self.name)
                raise
            self.preset, self.name = preset, name
            return position

        return held()

    def _use(self, preset: Preset, then: Done) -> None:
        """Load the model, then have the player use it."""
        self._uses += 1
        ticket = self._uses
        future = self._models.get(preset, self.quality)

        def loaded() -> None:
            if self._player.closed:
                then(self._player.gone())
                return
            if ticket != self._uses or future.cancelled():
                then(SupersededError(Code.PRESET, f"{preset.name}: a later choice replaced it before it was loaded"))
                return
            if (error := future.exception()) is not None:
                self._player.stop_waiting_for_model()
                then(error)
                return
            self._player.use_model(future.result(), preset.wet, then)

        if future.done():
            loaded()
        else:
            self._models.when_loaded(future, lambda: self._player.call(loaded))


class _ClosedPlayer:
    """Takes a closed player's place."""

    closed = True

    def __init__(self, player: Player) -> None:
        self.format, self._error = player.format, player.gone()

    def call(self, act: Callable[..., None], *args: Any) -> None:
        pass

    def future(self) -> asyncio.Future[Any]:
        raise self._error

    def gone(self) -> ProtocolError:
        return self._error

    def use_model(self, model: CorrectionStream, wet: float, then: Done) -> None:
        then(self._error)

    def stop_waiting_for_model(self) -> None:
        pass

    def follow(self, choice: LiveChoice | None) -> None:
        pass


def settle(future: asyncio.Future[Any], found: Any) -> None:
    """Ends a future that has not ended, with a result or with an error."""
    if future.done():
        return
    if isinstance(found, BaseException):
        future.set_exception(found)
    else:
        future.set_result(found)
