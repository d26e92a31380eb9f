"""The plug-in: how fast it renders, what a block costs the audio thread, and whether it keeps up in real time.

    make plugin hosts
    python -m stemprover.benchmarks.plugin render audio-thread
    python -m stemprover.benchmarks.plugin ardour --seconds 60
    python -m stemprover.benchmarks.plugin live --minutes 10 --period 256

render: the VST3 in pedalboard at 48 kHz, through a bridge without a model and through the shipped model at draft.
audio-thread: the VST3 in pedalboard, block by block in real time, compared with JUCE's own Gain at 0 dB.
ardour: Ardour exports a session with a stem and its mix; the model runs at standard, the plug-in's default.
live: the LV2 in jalv under jackd's dummy driver; the model runs at draft.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..bridge.client.client import Client
from ..bridge.osc import encode
from ..bridge.plugin.install import BUILT
from .ardour import Session
from .bridge import bridge
from .jack import jack
from .round_trips import BRIDGE, RATE, server
from .speed import MODEL_RATE, excerpt
from .table import print_table

BLOCKS = (128, 512, 2048)


@contextmanager
def environment(**values: object) -> Iterator[None]:
    """Set environment variables for plug-ins that are loaded meanwhile."""
    before = dict(os.environ)
    os.environ |= {name: str(value) for name, value in values.items()}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


def loaded(port: int, *, live: bool = False) -> Any:
    """The VST3 in pedalboard, connected to the bridge on `port`."""
    import pedalboard

    with environment(STEMPROVER_PORT=port, STEMPROVER_LIVE=int(live)):
        return pedalboard.load_plugin(str(BUILT / "StemProver.vst3"))


def stream_of(port: int) -> dict[str, Any]:
    """What the bridge reports about its newest stream. Raises RuntimeError if it has none."""
    with Client(RATE, 0, port=port) as control:
        streams = json.loads(control.request("/status", "")[1])["streams"]
    if not streams:
        raise RuntimeError("the plug-in has no stream at the bridge")
    return dict(max(streams, key=lambda one: one["stream"]))


def rendered(port: int, seconds: float) -> list[float]:
    """Times real time for each size in BLOCKS, with the mix. Raises RuntimeError if a block was not repaired."""
    stem, mix = excerpt(seconds * RATE / MODEL_RATE)
    four = np.ascontiguousarray(np.concatenate([stem, mix]))
    plugin = loaded(port)
    plugin.quality = "draft"
    plugin.process(four[:, : 4 * RATE], RATE)  # waits until the model is loaded
    found = []
    for block in BLOCKS:
        begun = time.perf_counter()
        plugin.process(four, RATE, buffer_size=block)
        found.append(seconds / (time.perf_counter() - begun))
        if (stream := stream_of(port))["late"] or not stream["blocks"]:
            raise RuntimeError(f"some blocks were not repaired: {stream}")
    return found


def block_times(host: Any, block: int, seconds: float) -> np.ndarray:
    """Microseconds that each block takes, sent in real time."""
    stem, _ = excerpt(seconds * RATE / MODEL_RATE)
    host.process(np.ascontiguousarray(stem[:, :block]), RATE, buffer_size=block)
    found, begun = [], time.perf_counter()
    for number, at in enumerate(range(0, stem.shape[1] - block, block)):
        part = np.ascontiguousarray(stem[:, at : at + block])
        time.sleep(max(0.0, begun + number * block / RATE - time.perf_counter()))
        start = time.perf_counter()
        host.process(part, RATE, buffer_size=block, reset=False)
        found.append(1e6 * (time.perf_counter() - start))
    return np.array(found[RATE // block :])  # without the first second, in which the plug-in connects


def live(minutes: float, period: int) -> tuple[int, int, int, str]:
    """Blocks that the bridge got, late ones among them, periods that JACK skipped, and the plug-in's log."""
    stem, mix = excerpt(60.0 * minutes * RATE / MODEL_RATE)
    with bridge() as (port, _), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with jack(folder, BUILT / "StemProver.lv2", port, period) as host:
            four = np.concatenate([stem, mix])
            host.play(four[:, : 4 * RATE], 60.0)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(encode(f"/stream/{stream_of(port)['stream']}/quality", "s", "draft"), ("127.0.0.1", port))
            time.sleep(2.0)
            before = stream_of(port)
            skipped = host.play(four, 60.0 * minutes + 60.0).skipped
            after = stream_of(port)
            if after["stream"] != before["stream"] or {before["quality"], after["quality"]} != {"draft"}:
                raise RuntimeError(f"expected one stream at draft throughout, got {before} and then {after}")
        log = folder / "config" / "stemprover" / "plugin.log"
        late = after["late"] - before["late"]
        return after["blocks"] - before["blocks"], late, skipped, log.read_text() if log.exists() else ""


def exported(kind: str, seconds: float) -> float:
    """Times real time of an export by Ardour, including its start."""
    stem, mix = excerpt(seconds)
    with bridge() as (port, _), tempfile.TemporaryDirectory() as name:
        session = Session(Path(name), BUILT / f"StemProver.{kind}", MODEL_RATE)
        session.build(stem, mix, bus=True)
        found = session.export(port, longest_s=60.0 + 10.0 * seconds)
    if "continues without repair" in found.log:
        raise RuntimeError(f"the bridge did not answer: {found.log}")
    return seconds / found.seconds


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("what", nargs="+", choices=["render", "audio-thread", "ardour", "live"])
    parser.add_argument("--seconds", type=float, default=30.0, help="audio for render and ardour")
    parser.add_argument("--minutes", type=float, default=10.0, help="audio for live")
    parser.add_argument("--period", type=int, default=256, help="JACK's period for live, in frames")
    given = parser.parse_args()
    # The user's own settings stay untouched, and the plug-in starts no bridge of its own.
    with (
        tempfile.TemporaryDirectory() as folder,
        environment(XDG_CONFIG_HOME=folder, STEMPROVER_COMMAND="/nowhere/stemprover"),
    ):
        measure(given)


def measure(given: argparse.Namespace) -> None:
    """Run and print the chosen measurements."""
    if "render" in given.what:
        rows = []
        with server(BRIDGE) as (port, _):
            rows.append(["a bridge without a model", *(f"{x:.1f}" for x in rendered(port, given.seconds))])
        with bridge() as (port, _):
            rows.append(["the model at draft", *(f"{x:.1f}" for x in rendered(port, given.seconds))])
        head = ["through", *(f"blocks of {block}" for block in BLOCKS)]
        print_table("Rendering at 48 kHz, stereo with the mix: times real time", head, rows)
    if "audio-thread" in given.what:
        import pedalboard

        rows = []
        with server(BRIDGE) as (port, _):
            for block in BLOCKS:
                plugin = loaded(port, live=True)
                own = block_times(plugin, block, 8.0)
                if not stream_of(port)["blocks"]:
                    raise RuntimeError("no block reached the bridge")
                both = [own, block_times(pedalboard.Gain(0.0), block, 8.0)]
                shown = [f"{np.median(times):.0f} ({np.quantile(times, 0.99):.0f})" for times in both]
                rows.append([str(block), *shown, f"{1e6 * block / RATE:.0f}"])
        head = ["block", "StemProver", "JUCE's Gain", "duration of a block"]
        print_table("One call of the host from Python, microseconds, median (99%)", head, rows)
    if "ardour" in given.what:
        for kind in ("lv2", "vst3"):
            times = exported(kind, given.seconds)
            print(f"Ardour with the {kind.upper()} exports {given.seconds:g} s at {times:.1f} times real time.\n")
    if "live" in given.what:
        blocks, late, skipped, log = live(given.minutes, given.period)
        print(
            f"jalv at {RATE} Hz and {given.period} frames, {given.minutes:g} minutes at draft: {late} of {blocks} "
            f"blocks late in the bridge, {skipped} periods skipped by JACK. The plug-in logged: "
            f"{log.strip() or 'nothing'}.\n"
        )


if __name__ == "__main__":
    main()
