"""The plug-in in real time: jackd's dummy driver, jalv with the LV2 in it, a client that plays into it and records."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PROBE = Path(__file__).with_name("jack_probe.c")
URI = "https://stemprover.invalid/plugin"


@dataclass(frozen=True)
class Played:
    """What has come back (2, n) from the same sample on, the latency that jalv tells JACK of, how often JACK has left
    out periods since somebody was late, which moves all that follows, and about where it did so first."""

    sound: np.ndarray
    latency: int
    left_out: int
    first_left_out: int


class Jack:
    """A server of its own, with jalv as client `stem`."""

    def __init__(self, folder: Path, environment: dict[str, str], jalv: subprocess.Popen[bytes]) -> None:
        self.folder, self.environment, self._jalv = folder, environment, jalv
        self.probe = folder / "jack_probe"
        subprocess.run(["cc", "-O2", "-o", self.probe, PROBE, "-ljack"], check=True)

    def tell(self, line: str) -> None:
        """A line for jalv's prompt: `set enabled 0`, `preset URI`."""
        assert self._jalv.stdin is not None
        self._jalv.stdin.write(line.encode() + b"\n")
        self._jalv.stdin.flush()

    def set_period(self, frames: int) -> None:
        """Another period, while everything runs."""
        subprocess.run(["jack_bufsize", str(frames)], env=self.environment, check=True, capture_output=True, timeout=30)

    def open_and_close(self) -> None:
        """One more jalv, for as long as it takes to load the plug-in. Raises CalledProcessError where it fails."""
        command = ["jalv", "-n", "other", "-x", URI]
        subprocess.run(
            command, env=self.environment, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=30
        )

    def play(self, sound: np.ndarray, timeout_s: float) -> Played:
        """Channels (2 or 4, n), stem and song, in real time."""
        files = self.folder / "in.raw", self.folder / "out.raw"
        np.ascontiguousarray(sound.T, "<f4").tofile(files[0])
        command = [str(self.probe), "stem", *map(str, files), str(len(sound))]
        try:
            shown = subprocess.run(
                command, env=self.environment, capture_output=True, text=True, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"jack_probe takes longer than {timeout_s:g} s: {self.log()}") from None
        if shown.returncode:
            raise RuntimeError(f"jack_probe ended with {shown.returncode}: {shown.stderr} {self.log()}")
        words = shown.stdout.split()
        return Played(np.fromfile(files[1], "<f4").reshape(-1, 2).T, int(words[1]), int(words[4]), int(words[7]))

    def log(self) -> str:
        """What server and host have printed."""
        return "".join((self.folder / name).read_text(errors="replace")[-2000:] for name in ("jackd.log", "jalv.log"))


def may_be_real_time() -> bool:
    """Whether this process may ask for a real-time priority."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    except PermissionError:
        return False
    os.sched_setscheduler(0, *before)
    return True


@contextlib.contextmanager
def jack(folder: Path, lv2: Path, port: int, period: int, rate: int = 48000) -> Iterator[Jack]:
    """The server at this period, and jalv in it, talking to the bridge on `port`. LV2 bundles that are in the folder's
    lv2/ are found."""
    bundles = folder / "lv2"
    bundles.mkdir(exist_ok=True)
    (bundles / lv2.name).symlink_to(lv2)
    environment = {
        **os.environ, "JACK_DEFAULT_SERVER": f"stemprover-{os.getpid()}-{period}", "LV2_PATH": str(bundles),
        "STEMPROVER_PORT": str(port), "STEMPROVER_COMMAND": "/nowhere/stemprover",
        "XDG_CONFIG_HOME": str(folder / "config"),
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        commands = {
            "jackd": ["jackd", "-R" if may_be_real_time() else "-r", "-d", "dummy", "-r", str(rate), "-p", str(period)],
            "jalv": ["jalv", "-n", "stem", "-x", URI],
        }
        for name, command in commands.items():
            out = stack.enter_context((folder / f"{name}.log").open("w"))
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT
            )
            stack.callback(_end, process)
            _until_there(process, {"jackd": "system:", "jalv": "stem:"}[name], environment, folder / f"{name}.log")
        yield Jack(folder, environment, process)


def _until_there(process: subprocess.Popen[bytes], port: str, environment: dict[str, str], log: Path) -> None:
    """Waits for a port of this name. Raises RuntimeError where the process ends, or takes longer than ten seconds."""
    deadline = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < deadline:
        ports = subprocess.run(["jack_lsp"], env=environment, capture_output=True, text=True, timeout=30, check=False)
        if port in ports.stdout:
            return
        time.sleep(0.05)
    raise RuntimeError(f"no {port} in JACK: {log.read_text(errors='replace')}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
