"""The plug-in in real time: jalv with the LV2 under jackd's dummy driver, and a client that plays and records."""

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
    """What came back. sound: (2, n), beginning with the answer to the first sample; latency: in samples, as jalv
    reports it to JACK; skipped: periods that JACK skipped because a client was late, which shifts everything after
    them; first_skipped: about at which sample the first was."""

    sound: np.ndarray
    latency: int
    skipped: int
    first_skipped: int


class Jack:
    """A JACK server with jalv as its client `stem`."""

    def __init__(self, folder: Path, environment: dict[str, str], jalv: subprocess.Popen[bytes]) -> None:
        self.folder, self.environment, self._jalv = folder, environment, jalv
        self.probe = folder / "jack_probe"
        subprocess.run(["cc", "-O2", "-o", self.probe, PROBE, "-ljack"], check=True)

    def tell(self, line: str) -> None:
        """Write a line to jalv's prompt, such as `set enabled 0` or `preset URI`."""
        assert self._jalv.stdin is not None
        self._jalv.stdin.write(line.encode() + b"\n")
        self._jalv.stdin.flush()

    def set_period(self, frames: int) -> None:
        """Change the period while everything runs."""
        subprocess.run(["jack_bufsize", str(frames)], env=self.environment, check=True, capture_output=True, timeout=30)

    def open_and_close(self) -> None:
        """Open the plug-in in a second jalv and close it again. Raises CalledProcessError if that fails."""
        command = ["jalv", "-n", "other", "-x", URI]
        subprocess.run(
            command, env=self.environment, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=30
        )

    def play(self, sound: np.ndarray, timeout_s: float) -> Played:
        """Play channels (2 or 4, n), the stem and the mix, in real time. Raises RuntimeError if the client fails."""
        files = self.folder / "in.raw", self.folder / "out.raw"
        np.ascontiguousarray(sound.T, "<f4").tofile(files[0])
        command = [str(self.probe), "stem", *map(str, files), str(len(sound))]
        try:
            shown = subprocess.run(
                command, env=self.environment, capture_output=True, text=True, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"jack_probe did not end within {timeout_s:g} s: {self.log()}") from None
        if shown.returncode:
            raise RuntimeError(f"jack_probe failed ({shown.returncode}): {shown.stderr} {self.log()}")
        words = shown.stdout.split()
        return Played(np.fromfile(files[1], "<f4").reshape(-1, 2).T, int(words[1]), int(words[3]), int(words[5]))

    def log(self) -> str:
        """The ends of the logs of jackd and jalv."""
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
def jack(folder: Path, lv2: Path, port: int, period: int, rate: int = 48000, *, waits: bool = False) -> Iterator[Jack]:
    """Run jackd at this period, and in it jalv with the plug-in, connected to the bridge on `port`. Further LV2 bundles
    can be put into `folder`/lv2. waits: JACK waits for a late client rather than go on without it, so that a skipped
    period costs no sample; its clients and its period have to stay the same."""
    bundles = folder / "lv2"
    bundles.mkdir(exist_ok=True)
    (bundles / lv2.name).symlink_to(lv2)
    environment = {
        **os.environ, "JACK_DEFAULT_SERVER": f"stemprover-{os.getpid()}-{period}", "LV2_PATH": str(bundles),
        "STEMPROVER_PORT": str(port), "STEMPROVER_COMMAND": "/nowhere/stemprover",
        "XDG_CONFIG_HOME": str(folder / "config"),
    }  # fmt: skip
    how = [*(["-S"] if waits else []), "-R" if may_be_real_time() else "-r"]
    with contextlib.ExitStack() as stack:
        commands = {
            "jackd": ["jackd", *how, "-d", "dummy", "-r", str(rate), "-p", str(period)],
            "jalv": ["jalv", "-n", "stem", "-x", URI],
        }
        for name, command in commands.items():
            out = stack.enter_context((folder / f"{name}.log").open("w"))
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT
            )
            stack.callback(_end, process)
            _wait_for_port(process, {"jackd": "system:", "jalv": "stem:"}[name], environment, folder / f"{name}.log")
        yield Jack(folder, environment, process)


def _wait_for_port(process: subprocess.Popen[bytes], port: str, environment: dict[str, str], log: Path) -> None:
    """Wait for a port with this name. Raises RuntimeError if the process ends or takes more than ten seconds."""
    deadline = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < deadline:
        ports = subprocess.run(["jack_lsp"], env=environment, capture_output=True, text=True, timeout=30, check=False)
        if port in ports.stdout:
            return
        time.sleep(0.05)
    raise RuntimeError(f"JACK has no port {port}: {log.read_text(errors='replace')}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
