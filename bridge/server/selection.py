"""What a stream of the bridge is repaired by: a preset or a blend, and its quality. Choices begin in the order in which
they came, load beside the sound, and hold from a position on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from ...engine.auto import preset_for_choice
from ...engine.detect.choice import Choice, LiveChoice
from ...engine.errors import StemProverError
from ...engine.preset import AUTO, Preset, blend_presets, load_preset
from ...engine.stream import DeltaStream
from ..osc import Code, ProtocolError
from .audio_format import Format
from .model_cache import Models, load_of

Told = Callable[[int | BaseException], None]


class SupersededError(ProtocolError):
    """A choice that another one has taken the place of."""


class Player(Protocol):
    """What a selection needs of its stream. All of it is for the event loop's thread but `call`."""

    format: Format
    closed: bool

    def call(self, act: Callable[..., None], *args: Any) -> None:
        """From another thread, on the loop's; nothing where that has ended."""

    def future(self) -> asyncio.Future[Any]:
        """Something to wait for, which ends with the stream at the latest."""

    def gone(self) -> ProtocolError:
        """That the stream was closed meanwhile."""

    def go_over(self, model: DeltaStream, wet: float, then: Told) -> None:
        """Play by this model; `then` gets the position from which it holds, or what went wrong."""

    def go_on(self) -> None:
        """Wait for a model no longer."""

    def listen(self, choice: LiveChoice | None) -> None:
        """Have this choice hear what is played; None: nobody listens."""


class Selection:
    """preset: what is played by; name: what was asked for, which may be auto or a blend's; quality: the steps'. `allow`
    is called with a quality that is asked for, and raises ProtocolError where there is no room for it."""

    def __init__(self, player: Player, models: Models, preset: Preset) -> None:
        self.preset, self.name, self.quality = preset, preset.name, "standard"
        self.allow: Callable[[str], None] = lambda quality: None
        self._player: Player = player
        self._models = models
        self._loop = asyncio.get_running_loop()
        self._setting = asyncio.Lock()  # held while a choice is read and begins, so that they keep their order
        self._wanted = (preset, preset.name)
        self._uses = 0

    def begin(self, then: Told) -> None:
        """Load the first preset; `then` as in `Player.go_over`."""
        self._use(self.preset, then)

    def close(self) -> None:
        """Let go of the player, which is freed at once."""
        self._player = _Closed(self._player)

    async def select(self, name: str) -> int:
        """A preset by its name, or auto; returns the position from which it holds. Raises PresetError."""
        if "/" in name or "\\" in name or name.endswith(".toml"):
            raise ProtocolError(Code.PRESET, f"{name!r} is no preset's name; /presets lists them")
        async with self._setting:
            preset = await self._read(load_preset, "general" if name == AUTO else name)
            done = self._select(preset, name)
        form = self._player.format
        choice = LiveChoice(form.sample_rate, form.channels, form.mix_channels > 0) if name == AUTO else None
        try:
            position = await done
        except SupersededError:
            if self._wanted == (preset, name):  # another quality has come meanwhile, no other preset
                self._player.listen(choice)
            raise
        self._player.listen(choice)
        return position

    async def blend(self, weights: dict[str, float]) -> int:
        """Several presets; as `select`."""
        async with self._setting:
            preset = await self._read(blend_presets, weights)
            done = self._select(preset, preset.name)
        position = await done
        self._player.listen(None)
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
        """What a live choice asks for, where auto is still what is wanted."""
        preset = await self._read(preset_for_choice, choice, self._player.format.mix_channels > 0)
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
        """Begins at once; what it returns waits for it to hold."""
        if preset.before or preset.after:
            raise ProtocolError(
                Code.PRESET, f"{preset.name} has plugins around the repair, which streams have not; render files"
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

    def _use(self, preset: Preset, then: Told) -> None:
        """Load, then let the player go over to it; `then` as in `Player.go_over`."""
        self._uses += 1
        ticket = self._uses
        future = self._models.get(preset, self.quality)

        def loaded() -> None:
            if self._player.closed:
                then(self._player.gone())
                return
            if ticket != self._uses or future.cancelled():
                then(SupersededError(Code.PRESET, f"{preset.name}: another choice was made before it was loaded"))
                return
            if (error := future.exception()) is not None:
                self._player.go_on()
                then(error)
                return
            self._player.go_over(future.result(), preset.wet, then)

        if future.done():
            loaded()
        else:
            self._models.when_loaded(future, lambda: self._player.call(loaded))


class _Closed:
    """In a closed player's place."""

    closed = True

    def __init__(self, player: Player) -> None:
        self.format, self._error = player.format, player.gone()

    def call(self, act: Callable[..., None], *args: Any) -> None:
        pass

    def future(self) -> asyncio.Future[Any]:
        raise self._error

    def gone(self) -> ProtocolError:
        return self._error

    def go_over(self, model: DeltaStream, wet: float, then: Told) -> None:
        then(self._error)

    def go_on(self) -> None:
        pass

    def listen(self, choice: LiveChoice | None) -> None:
        pass


def settle(future: asyncio.Future[Any], found: Any) -> None:
    """Ends a future that has not ended with a result, or with an error."""
    if future.done():
        return
    if isinstance(found, BaseException):
        future.set_exception(found)
    else:
        future.set_result(found)
