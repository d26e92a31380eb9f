"""Clients with other OSC implementations: SuperCollider over TCP, liblo over UDP (`make test` installs them)."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bridges import running
from fakes import FakeModelRepairer
from paths import ROOT
from stemprover.bridge.client.client import Client
from stemprover.bridge.osc import from_blob, to_blob
from stemprover.bridge.server.transport import Bridge

EXAMPLE = ROOT / "examples" / "bridge.scd"


@pytest.fixture
def bridge() -> Iterator[Bridge]:
    with running(FakeModelRepairer({"general": 1.0, "bleed": 1.0})) as bridge:
        yield bridge


@pytest.mark.skipif(shutil.which("sclang") is None, reason="no SuperCollider; apt install supercollider-language")
def test_supercollider_streams_over_tcp(bridge: Bridge, tmp_path: Path) -> None:
    environment = {
        **os.environ, "HOME": str(tmp_path), "QT_QPA_PLATFORM": "offscreen", "QTWEBENGINE_DISABLE_SANDBOX": "1",
        "XDG_RUNTIME_DIR": str(tmp_path),
    }  # fmt: skip
    shown = subprocess.run(
        ["sclang", str(EXAMPLE), str(bridge.port)], env=environment, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stdout[-2000:] + shown.stderr[-2000:]
    assert "latency 14043 samples, 655360 bytes came back, all the same" in shown.stdout


@pytest.mark.skipif(shutil.which("oscsend") is None, reason="no liblo; apt install liblo-tools")
def test_oscsend_sets_a_parameter(bridge: Bridge) -> None:
    with Client(44100, 2, port=bridge.port) as client:
        command = ["oscsend", f"osc.udp://127.0.0.1:{bridge.port}", "/stemprover/stream/1/wet", "f", "0.25"]
        subprocess.run(command, check=True, timeout=20)
        block = np.ones((2, 2048), np.float32)
        for _ in range(20):
            out = client.process(block, offline=True)
        assert (out == 1.25).all()


class Liblo:
    """The part of liblo that a stream needs, through ctypes."""

    HANDLER = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_void_p), ctypes.c_int,
        ctypes.c_void_p, ctypes.c_void_p,
    )  # fmt: skip

    def __init__(self, port: int) -> None:
        self.lo = ctypes.CDLL(ctypes.util.find_library("lo"))
        for name in ("lo_server_thread_new", "lo_server_thread_get_server", "lo_address_new", "lo_message_new",
                     "lo_blob_new", "lo_blob_dataptr"):  # fmt: skip
            getattr(self.lo, name).restype = ctypes.c_void_p
        self.lo.lo_blob_datasize.restype = ctypes.c_uint32
        self.thread = ctypes.c_void_p(self.lo.lo_server_thread_new(None, None))
        self.server = ctypes.c_void_p(self.lo.lo_server_thread_get_server(self.thread))
        self.address = ctypes.c_void_p(self.lo.lo_address_new(b"127.0.0.1", str(port).encode()))
        self.received, self.arrived = list[tuple[str, list[object]]](), threading.Semaphore(0)
        self._handler = self.HANDLER(self._receive)
        self.lo.lo_server_thread_add_method(self.thread, None, None, self._handler, None)
        self.lo.lo_server_thread_start(self.thread)

    def _receive(self, path: bytes, types: bytes, arguments: object, count: int, *_: object) -> int:
        found: list[object] = []
        for tag, place in zip(types.decode(), arguments[:count], strict=True):  # type: ignore[index]
            if tag == "b":
                blob = ctypes.c_void_p(place)
                data = self.lo.lo_blob_dataptr(blob)
                found.append(ctypes.string_at(data, self.lo.lo_blob_datasize(blob)))
            elif tag == "s":
                found.append(ctypes.string_at(place).decode())
            else:
                kind = {"i": ctypes.c_int32, "h": ctypes.c_int64, "f": ctypes.c_float, "d": ctypes.c_double}[tag]
                found.append(kind.from_address(place).value)
        self.received.append((path.decode(), found))
        self.arrived.release()
        return 0

    def ask(self, path: str, tags: str, *values: object) -> tuple[str, list[object]]:
        message = ctypes.c_void_p(self.lo.lo_message_new())
        for tag, value in zip(tags, values, strict=True):
            if tag == "b":
                assert isinstance(value, bytes)
                blob = ctypes.c_void_p(self.lo.lo_blob_new(len(value), value))
                self.lo.lo_message_add_blob(message, blob)
                self.lo.lo_blob_free(blob)
            elif tag == "s":
                self.lo.lo_message_add_string(message, str(value).encode())
            elif tag == "h":
                self.lo.lo_message_add_int64(message, ctypes.c_int64(value))  # type: ignore[arg-type]
            else:
                self.lo.lo_message_add_int32(message, ctypes.c_int32(value))  # type: ignore[arg-type]
        self.lo.lo_send_message_from(self.address, self.server, path.encode(), message)
        self.lo.lo_message_free(message)
        assert self.arrived.acquire(timeout=20), "no answer"
        return self.received[-1]

    def close(self) -> None:
        self.lo.lo_server_thread_free(self.thread)
        self.lo.lo_address_free(self.address)


@pytest.mark.skipif(ctypes.util.find_library("lo") is None, reason="no liblo; apt install liblo-tools")
def test_liblo_streams_over_udp(bridge: Bridge) -> None:
    stem = (0.1 * np.random.default_rng(0).standard_normal((2, 40 * 1024))).astype(np.float32)
    client = Liblo(bridge.port)
    path, ready = client.ask("/stemprover/hello", "isssiiii", 1, "", "liblo", "stream", 44100, 1024, 2, 0)
    assert path == "/stemprover/ready"
    stream, latency = ready[2], ready[4]
    assert isinstance(latency, int)
    out = []
    for number in range(40):
        audio = to_blob(stem[:, 1024 * number : 1024 * number + 1024])
        path, reply = client.ask("/stemprover/block", "iihiib", stream, number, 1024 * number, 1024, 1, audio)
        assert path == "/stemprover/block"
        assert reply[:4] == [stream, number, 1024 * number, 1024]
        assert isinstance(reply[8], bytes)
        out.append(from_blob(reply[8], 2, 1024))
    client.close()
    found = np.concatenate(out, axis=1)[:, latency:]
    assert np.array_equal(found, 2 * stem[:, : found.shape[1]])
