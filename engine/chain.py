"""Chains of pedalboard plugins that a preset runs before and after the repair.

Only plugins without latency that treat each channel by itself are allowed, so that a chain can run block by block
beside the dry signal and the result does not depend on block sizes. The table below is the whole list; a test compares
it with pedalboard's own signatures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from .errors import InputError, PresetError

_CUTOFF = (10.0, 40_000.0)
_LEVEL_DB = (-100.0, 0.0)
_GAIN_DB = (-60.0, 60.0)
_Q = (0.05, 50.0)
_TIME_MS = (0.1, 5000.0)
_RATIO = (1.0, 100.0)

# plugin -> parameter -> (lowest, highest value)
PLUGINS: Mapping[str, Mapping[str, tuple[float, float]]] = MappingProxyType(
    {
        "HighpassFilter": {"cutoff_frequency_hz": _CUTOFF},
        "LowpassFilter": {"cutoff_frequency_hz": _CUTOFF},
        "HighShelfFilter": {"cutoff_frequency_hz": _CUTOFF, "gain_db": _GAIN_DB, "q": _Q},
        "LowShelfFilter": {"cutoff_frequency_hz": _CUTOFF, "gain_db": _GAIN_DB, "q": _Q},
        "PeakFilter": {"cutoff_frequency_hz": _CUTOFF, "gain_db": _GAIN_DB, "q": _Q},
        "Gain": {"gain_db": _GAIN_DB},
        "NoiseGate": {"threshold_db": _LEVEL_DB, "ratio": _RATIO, "attack_ms": _TIME_MS, "release_ms": _TIME_MS},
        "Compressor": {"threshold_db": _LEVEL_DB, "ratio": _RATIO, "attack_ms": _TIME_MS, "release_ms": _TIME_MS},
        "Limiter": {"threshold_db": _LEVEL_DB, "release_ms": _TIME_MS},
        "Clipping": {"threshold_db": _LEVEL_DB},
        "Distortion": {"drive_db": _GAIN_DB},
        "Invert": {},
    }
)


@dataclass(frozen=True)
class PluginSettings:
    """One plugin and its parameters; the others keep pedalboard's defaults.

    Raises PresetError for an unknown plugin or parameter, or a value out of range. The message names only the key; the
    caller adds the file.
    """

    plugin: str
    parameters: Mapping[str, float]

    def __post_init__(self) -> None:
        if self.plugin not in PLUGINS:
            raise PresetError(f"plugin = {self.plugin!r} is not available; choose one of {', '.join(PLUGINS)}")
        known = PLUGINS[self.plugin]
        for key, value in self.parameters.items():
            if key not in known:
                takes = ", ".join(known) or "no parameters"
                raise PresetError(f"unknown key {key!r}; {self.plugin} takes {takes}")
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise PresetError(f"{key} = {value!r} is not a number")
            low, high = known[key]
            if not low <= value <= high:
                raise PresetError(f"{key} = {value:g} is out of range; {self.plugin} takes {low:g} to {high:g}")
        object.__setattr__(self, "parameters", MappingProxyType(dict(self.parameters)))

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"parameters": dict(self.parameters)}  # a view cannot be sent to another process

    @classmethod
    def from_toml(cls, table: object) -> PluginSettings:
        """A [[before]] or [[after]] table: `plugin` and the plugin's parameters."""
        if not isinstance(table, dict) or not isinstance(table.get("plugin"), str):
            raise PresetError('needs plugin = "...", the name of a pedalboard plugin')
        return cls(table["plugin"], {key: value for key, value in table.items() if key != "plugin"})

    def build(self, sample_rate: float) -> Any:
        """The pedalboard plugin. Raises InputError if a frequency is too high for `sample_rate` (Hz)."""
        import pedalboard

        cutoff_hz = self.parameters.get("cutoff_frequency_hz")
        if cutoff_hz is not None and cutoff_hz >= sample_rate / 2:
            raise InputError(
                f"the preset's {self.plugin} at {cutoff_hz:g} Hz needs a sample rate above "
                f"{2 * cutoff_hz:g} Hz, and this is {sample_rate:g} Hz; lower cutoff_frequency_hz or use another preset"
            )
        return getattr(pedalboard, self.plugin)(**self.parameters)


class Chain:
    """The running chain of one stream: call it with one block after another.

    pedalboard mistakes a block with fewer samples than channels for one with swapped axes, so each channel has its own
    board and is passed as one row.
    """

    def __init__(self, links: Sequence[PluginSettings], sample_rate: float, channels: int) -> None:
        self.sample_rate = sample_rate
        self._boards: list[Any] = []
        if links:
            import pedalboard

            self._boards = [pedalboard.Pedalboard([link.build(sample_rate) for link in links]) for _ in range(channels)]

    def __call__(self, block: np.ndarray) -> np.ndarray:
        """Block (C, T) float32 to (C, T) float32 with no delay. The caller's array is not changed."""
        if not self._boards or block.shape[-1] == 0:
            return block
        rows = [
            board(np.ascontiguousarray(row), self.sample_rate, reset=False)
            for board, row in zip(self._boards, block, strict=True)
        ]
        return np.stack(rows)
