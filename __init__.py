"""StemProver: repairs the artefacts of separated stems with a phase-aware latent diffusion model.

The public API, loaded on first use so that `import stemprover` costs nothing:

    from stemprover import Repairer, render_file

    render_file("vocals.wav", "repaired.wav", mix="song.wav")
    repaired = Repairer("bleed").process(stem, sample_rate, mix=mix)   # float32 arrays (C, T)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .engine.auto import AutoStream
    from .engine.errors import StemProverError
    from .engine.preset import Preset, blend_presets, check_preset, list_presets, load_preset
    from .engine.repair import Repairer
    from .offline.render import RenderReport, render_file

_HOME = {
    "AutoStream": ".engine.auto",
    "Preset": ".engine.preset",
    "blend_presets": ".engine.preset",
    "check_preset": ".engine.preset",
    "list_presets": ".engine.preset",
    "load_preset": ".engine.preset",
    "RenderReport": ".offline.render",
    "render_file": ".offline.render",
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
