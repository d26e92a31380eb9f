"""The plug-in: how much faster than real time it renders, what a block costs the audio thread, and whether it keeps up.

    make plugin hosts
    python -m stemprover.benchmarks.plugin render audio-thread
    python -m stemprover.benchmarks.plugin ardour --seconds 60
    python -m stemprover.benchmarks.plugin live --minutes 10 --period 256

render: pedalboard with the VST3, at 48 kHz, through a bridge without a model and through the shipped model at draft.
audio-thread: the same host as if live; beside it JUCE's own Gain at 0 dB, which pedalboard holds ready.
ardour: Ardour exports a session with a stem and its song, the model at standard, as the plug-in comes.
live: the LV2 in jalv under jackd's dummy driver, the model at draft.
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
from rich.console import Console
from rich.table import Table

from ..bridge.client.client import Client
from ..bridge.osc import encode
from ..bridge.plugin.install import BUILT
from .ardour import Session
from .bridge import bridge
from .echo import BRIDGE, RATE, process
from .jack import jack
from .speed import MODEL_RATE, excerpt

BLOCKS = (128, 512, 2048)


@contextmanager
def environment(**values: object) -> Iterator[None]:
    """Environment variables for what is loaded meanwhile."""
    before = dict(os.environ)
    os.environ |= {name: str(value) for name, value in values.items()}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


def loaded(port: int, *, live: bool = False) -> Any:
    """The VST3 in pedalboard, talking to the bridge on `port`."""
    import pedalboard

    with environment(STEMPROVER_PORT=port, STEMPROVER_LIVE=int(live)):
        return pedalboard.load_plugin(str(BUILT / "StemProver.vst3"))


def stream_of(port: int) -> dict[str, Any]:
    """What the bridge says of its newest stream. Raises RuntimeError where it has none."""
    with Client(RATE, 0, port=port) as control:
        streams = json.loads(control.request("/status", "")[1])["streams"]
    if not streams:
        raise RuntimeError("the plug-in has no stream at the bridge")
    return dict(max(streams, key=lambda one: one["stream"]))


def rendered(port: int, seconds: float) -> list[float]:
    """Times real time for each of BLOCKS, stem and song given. Raises RuntimeError where not all of it was repaired."""
    stem, song = excerpt(seconds * RATE / MODEL_RATE)
    four = np.ascontiguousarray(np.concatenate([stem, song]))
    plugin = loaded(port)
    plugin.quality = "draft"
    plugin.process(four[:, : 4 * RATE], RATE)  # with the model loaded
    found = []
    for block in BLOCKS:
        begun = time.perf_counter()
        plugin.process(four, RATE, buffer_size=block)
        found.append(seconds / (time.perf_counter() - begun))
        if (stream := stream_of(port))["late"] or not stream["blocks"]:
            raise RuntimeError(f"not all of it was repaired: {stream}")
    return found


def block_times(host: Any, block: int, seconds: float) -> np.ndarray:
    """Microseconds that each block takes, in real time."""
    stem, _ = excerpt(seconds * RATE / MODEL_RATE)
    host.process(np.ascontiguousarray(stem[:, :block]), RATE, buffer_size=block)
    found, begun = [], time.perf_counter()
    for number, at in enumerate(range(0, stem.shape[1] - block, block)):
        part = np.ascontiguousarray(stem[:, at : at + block])
        time.sleep(max(0.0, begun + number * block / RATE - time.perf_counter()))
        start = time.perf_counter()
        host.process(part, RATE, buffer_size=block, reset=False)
        found.append(1e6 * (time.perf_counter() - start))
    return np.array(found[RATE // block :])  # from the second second on: the bridge is there


def live(minutes: float, period: int) -> tuple[int, int, int, str]:
    """Blocks of the bridge, late ones among them, periods that JACK left out, and what the plug-in has logged."""
    stem, song = excerpt(60.0 * minutes * RATE / MODEL_RATE)
    with bridge() as (port, _), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with jack(folder, BUILT / "StemProver.lv2", port, period) as host:
            four = np.concatenate([stem, song])
            host.play(four[:, : 4 * RATE], 60.0)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                one.sendto(encode(f"/stream/{stream_of(port)['stream']}/quality", "s", "draft"), ("127.0.0.1", port))
            time.sleep(2.0)
            before = stream_of(port)
            left_out = host.play(four, 60.0 * minutes + 60.0).left_out
            after = stream_of(port)
            if after["stream"] != before["stream"] or {before["quality"], after["quality"]} != {"draft"}:
                raise RuntimeError(f"it was not one stream at draft: {before}, {after}")
        log = folder / "config" / "stemprover" / "plugin.log"
        late = after["late"] - before["late"]
        return after["blocks"] - before["blocks"], late, left_out, log.read_text() if log.exists() else ""


def exported(kind: str, seconds: float) -> float:
    """Times real time of an export by Ardour, its start included."""
    stem, song = excerpt(seconds)
    with bridge() as (port, _), tempfile.TemporaryDirectory() as name:
        session = Session(Path(name), BUILT / f"StemProver.{kind}", MODEL_RATE)
        session.build(stem, song, bus=True)
        found = session.export(port, longest_s=60.0 + 10.0 * seconds)
    if "goes on without repair" in found.log:
        raise RuntimeError(f"the bridge did not answer: {found.log}")
    return seconds / found.seconds


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", nargs="+", choices=["render", "audio-thread", "ardour", "live"])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--minutes", type=float, default=10.0, help="of live")
    parser.add_argument("--period", type=int, default=256, help="of live, in frames")
    given = parser.parse_args()
    # Nothing of the user's own is read or written, and no other bridge is started.
    with (
        tempfile.TemporaryDirectory() as folder,
        environment(XDG_CONFIG_HOME=folder, STEMPROVER_COMMAND="/nowhere/stemprover"),
    ):
        measure(given, Console())


def measure(given: argparse.Namespace, console: Console) -> None:
    """Runs what was asked for."""
    if "render" in given.what:
        title = "times real time, 48 kHz stereo with the song"
        table = Table("through", *(f"blocks of {block}" for block in BLOCKS), title=title)
        with process(BRIDGE) as port:
            table.add_row("a bridge without a model", *(f"{x:.1f}" for x in rendered(port, given.seconds)))
        with bridge() as (port, _):
            table.add_row("the model at draft", *(f"{x:.1f}" for x in rendered(port, given.seconds)))
        console.print(table)
    if "audio-thread" in given.what:
        import pedalboard

        title = "median (99%) of a call from Python"
        table = Table("block", "StemProver, us", "JUCE's Gain, us", "a block lasts, us", title=title)
        with process(BRIDGE) as port:
            for block in BLOCKS:
                plugin = loaded(port, live=True)
                own = block_times(plugin, block, 8.0)
                if not stream_of(port)["blocks"]:
                    raise RuntimeError("nothing reached the bridge")
                both = [own, block_times(pedalboard.Gain(0.0), block, 8.0)]
                shown = [f"{np.median(times):.0f} ({np.quantile(times, 0.99):.0f})" for times in both]
                table.add_row(str(block), *shown, f"{1e6 * block / RATE:.0f}")
        console.print(table)
    if "ardour" in given.what:
        for kind in ("lv2", "vst3"):
            times = exported(kind, given.seconds)
            console.print(
                f"Ardour with the {kind.upper()}: {given.seconds:g} s exported {times:.1f} times as fast as real time"
            )
    if "live" in given.what:
        blocks, late, left_out, log = live(given.minutes, given.period)
        console.print(
            f"jalv, {RATE} Hz, {given.period} frames, {given.minutes:g} minutes at draft: {late} of {blocks} blocks "
            f"late in the bridge; {left_out} periods left out by JACK; the plug-in's log: {log.strip() or 'nothing'}"
        )


if __name__ == "__main__":
    main()
