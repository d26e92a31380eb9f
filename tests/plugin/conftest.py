"""Fixtures for the plug-in that `make plugin` builds."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hosts import needs
from stemprover.bridge.plugin.install import BUILT


@pytest.fixture(scope="session")
def vst3() -> Path:
    """The VST3 bundle."""
    needs((BUILT / "StemProver.vst3").is_dir(), "StemProver.vst3")
    return BUILT / "StemProver.vst3"


@pytest.fixture(scope="session")
def lv2() -> Path:
    """The LV2 bundle."""
    needs((BUILT / "StemProver.lv2").is_dir(), "StemProver.lv2")
    return BUILT / "StemProver.lv2"


@pytest.fixture
def plugin_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Sets the environment that the plug-in reads when loaded. By default no bridge answers and none is started."""

    def put(port: int = 9, *, live: bool = False, timeout_s: float = 20.0) -> None:
        monkeypatch.setenv("STEMPROVER_PORT", str(port))
        monkeypatch.setenv("STEMPROVER_LIVE", str(int(live)))
        monkeypatch.setenv("STEMPROVER_OFFLINE_TIMEOUT_S", str(timeout_s))
        monkeypatch.setenv("STEMPROVER_COMMAND", "/nowhere/stemprover")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    put()
    return put


@pytest.fixture
def load(vst3: Path, plugin_environment: Callable[..., None]) -> Iterator[Callable[..., Any]]:
    """load(port, ...) returns a newly loaded plug-in in pedalboard."""
    import pedalboard

    def make(port: int = 9, **options: Any) -> Any:
        plugin_environment(port, **options)
        return pedalboard.load_plugin(str(vst3))

    yield make
    # A plug-in and its parameters refer to each other. One left in memory keeps looking for its bridge and may find
    # another test's on the same port.
    gc.collect()
