"""StemProver: repairs the artefacts of separated stems with a phase-aware latent diffusion model.

The public API, loaded on first use so that `import stemprover` costs nothing:

    from stemprover import Repairer, load_preset

    repairer = Repairer(load_preset("bleed"))
    repaired = repairer.process(stem, sample_rate, mix=song)   # float32 arrays (C, T)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .bridge.auto import AutoStream
    from .bridge.presets import Preset, blend_presets, check_preset, list_presets, load_preset
    from .bridge.render import RenderReport, render_file
    from .engine.errors import StemProverError
    from .engine.repair import Repairer

_HOME = {
    "AutoStream": ".bridge.auto",
    "Preset": ".bridge.presets",
    "blend_presets": ".bridge.presets",
    "check_preset": ".bridge.presets",
    "list_presets": ".bridge.presets",
    "load_preset": ".bridge.presets",
    "RenderReport": ".bridge.render",
    "render_file": ".bridge.render",
    "Repairer": ".engine.repair",
    "StemProverError": ".engine.errors",
}

__all__ = [
    "AutoStream",
    "Preset",
    "RenderReport",
    "Repairer",
    "StemProverError",
    "__version__",
    "blend_presets",
    "check_preset",
    "list_presets",
    "load_preset",
    "render_file",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
