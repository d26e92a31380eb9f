"""`stemprover serve` as a process, with `send` and `status`."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from bridges import Wire
from stemprover.bridge.client.client import Client, find_token
from stemprover.bridge.osc import to_blob
from stemprover.bridge.server.serve import read_token
from stemprover.engine.errors import OptionError


@contextlib.contextmanager
def serving(*options: str) -> Iterator[tuple[subprocess.Popen, int, int]]:
    """Runs a bridge; yields its process, port and HTTP port."""
    command = [sys.executable, "-m", "stemprover", "serve", "--port", "0", "--http-port", "0", "--device", "cpu"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"OSC 127\.0\.0\.1:(\d+) .*127\.0\.0\.1:(\d+)/monitor", line)
        assert found, line + (process.stderr.read() if process.stderr and process.poll() is not None else "")
        yield process, int(found[1]), int(found[2])
    finally:
        process.kill()
        process.wait(10)


def test_a_bridge_from_start_to_end() -> None:
    """It accepts streams before the model is loaded, does not load torch, answers waiting blocks, says goodbye and
    exits with 0."""
    with serving() as (process, port, _):
        with Wire(port) as wire:
            ready = wire.hello()
            assert ready.address == "/ready"
            stream, audio = ready.arguments[2], np.ones((2, 512), np.float32)
            assert wire.ask("/block", "iihiib", stream, 0, 0, 512, 0, to_blob(audio)).address == "/block"
            maps = Path(f"/proc/{process.pid}/maps")
            if maps.exists():
                assert "libtorch" not in maps.read_text()
            process.send_signal(signal.SIGTERM)
            assert wire.receive().address == "/goodbye"
            with pytest.raises(ConnectionError):
                wire.receive()
        assert process.wait(10) == 0
        assert process.stderr is not None
        log = process.stderr.read()
    for event in ("event=start", "event=open stream=1", "event=close stream=1", "event=stop"):
        assert event in log
    assert "Traceback" not in log
    assert len(log.splitlines()) < 12, "one line for each event, none for blocks"


def test_a_file_sent_through_a_bridge_equals_its_repair(
    run_cli: Callable, make_audio: Callable, tmp_path: Path
) -> None:
    stem, mix = make_audio("stem.wav", seconds=3.0), make_audio("mix.wav", seconds=3.0, seed=1)
    with serving() as (_, port, http_port):
        sent = run_cli("send", stem, "-o", tmp_path / "sent.wav", "--mix", mix, "--port", port)
        assert sent.code == 0, sent.err
        again = run_cli("send", stem, "-o", tmp_path / "sent.wav", "--port", port)
        assert again.code == 2, "the output exists already"
        shown = run_cli("status", "--json", "--http-port", http_port)
        assert json.loads(shown.out)["streams"] == []
        assert "0 of" in run_cli("status", "--once", "--http-port", http_port).out
    run_cli("repair", stem, "-o", tmp_path / "repaired.wav", "--mix", mix, "--preset", "general", "--device", "cpu")
    found, wanted = (soundfile.read(tmp_path / name)[0] for name in ("sent.wav", "repaired.wav"))
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 2e-4


def test_a_client_reconnects_after_the_bridge_was_killed_and_restarted() -> None:
    audio = np.ones((2, 1024), np.float32)
    with serving() as (process, port, _):
        client = Client(44100, 2, port=port)
        client.process(audio, offline=True)
        process.kill()
        process.wait(10)
        for _ in range(20):
            out = client.process(audio)
        assert (out == 1.0).all()
    again = [sys.executable, "-m", "stemprover", "serve", "--port", str(port), "--http-port", "0", "--device", "cpu"]
    process = subprocess.Popen(again, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        assert "OSC" in process.stdout.readline()
        deadline = time.monotonic() + 12.0
        while not client.connected and time.monotonic() < deadline:
            client.process(audio)
            time.sleep(0.05)
        assert client.connected
        client.close()
    finally:
        process.kill()
        process.wait(10)


def test_a_token_file_that_is_not_text_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(b"\xff\xfe\x00")
    file.chmod(0o600)
    for read in (read_token, find_token):
        with pytest.raises(OptionError, match="token is not a text file; use"):
            read(file)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("serve", "--host", "0.0.0.0"), "all networks"),
        (("serve", "--max-streams", "0"), "--max-streams 0"),
        (("status", "--http-port", "1"), "stemprover serve"),
        (("send", "nowhere.wav", "-o", "out.wav"), "nowhere.wav"),
    ],
)
def test_invalid_options_give_a_short_error(run_cli: Callable, command: tuple[str, ...], message: str) -> None:
    result = run_cli(*command)
    assert result.code in (1, 2)
    assert message in result.err
    assert len(result.err.strip().splitlines()) <= 3
    assert "Traceback" not in result.err
