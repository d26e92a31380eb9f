"""Tests for discovery (OSCQuery), the status and the monitor page of a bridge."""

from __future__ import annotations

import http.client
import io
import json
import time
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from bridges import Wire, running
from browsers import CHROMIUM, Browser
from fakes import FakeModelRepairer
from paths import ROOT
from stemprover.bridge.client.client import BridgeLostError, Client
from stemprover.bridge.client.status import fetch_status, status_table
from stemprover.bridge.server.transport import Bridge
from stemprover.engine.errors import StemProverError


def get(bridge: Bridge, path: str, **headers: str) -> tuple[int, Any, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", bridge.http_port, timeout=10)
    all_headers = {"Host": f"127.0.0.1:{bridge.http_port}", **{k.replace("_", "-"): v for k, v in headers.items()}}
    connection.putrequest("GET", path, skip_host=True)
    for name, value in all_headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    body = response.read()
    content = json.loads(body) if "json" in (response.getheader("Content-Type") or "") else body.decode()
    return response.status, content, response.headers


def test_discovery_lists_the_parameters_of_open_streams() -> None:
    with running() as bridge, Client(48000, 2, 2, port=bridge.port, name="drums") as client:
        client.set_wet(0.25)
        _, info, _ = get(bridge, "/?HOST_INFO")
        assert (info["OSC_PORT"], info["OSC_TRANSPORT"]) == (bridge.port, "UDP")
        assert info["EXTENSIONS"]["VALUE"]
        _, tree, _ = get(bridge, "/")
        stream = tree["CONTENTS"]["stemprover"]["CONTENTS"]["stream"]["CONTENTS"]["1"]
        assert stream["DESCRIPTION"] == "drums"
        wet = stream["CONTENTS"]["wet"]
        assert wet["FULL_PATH"] == "/stemprover/stream/1/wet"
        assert (wet["TYPE"], wet["VALUE"], wet["RANGE"]) == ("f", [0.25], [{"MIN": 0.0, "MAX": 1.0}])
        assert "bleed" in stream["CONTENTS"]["preset"]["RANGE"][0]["VALS"]
        assert get(bridge, "/stemprover/stream/1/wet?VALUE")[1] == {"VALUE": [0.25]}
        assert get(bridge, "/stemprover/stream/9")[0] == 404


def test_discovered_parameters_can_be_set() -> None:
    """Sends a datagram with the discovered address, type and port, as a generic OSC tool would."""
    with running() as bridge, Client(44100, 2, port=bridge.port):
        _, info, _ = get(bridge, "/?HOST_INFO")
        _, node, _ = get(bridge, "/stemprover/stream/1/bypass")
        with Wire(info["OSC_PORT"], udp=True) as tool:
            path = node["FULL_PATH"].removeprefix("/stemprover")
            assert tool.ask(path, node["TYPE"], 1).address == "/ack"
        assert get(bridge, "/stemprover/stream/1/bypass?VALUE")[1] == {"VALUE": [1]}


def test_requests_from_other_web_sites_are_rejected() -> None:
    with running() as bridge:
        port = bridge.http_port
        assert get(bridge, "/status.json", Host="evil.example")[0] == 403
        assert get(bridge, "/status.json", Host=f"evil.example:{port}")[0] == 403
        assert get(bridge, "/status.json", Origin="http://evil.example")[0] == 403
        assert get(bridge, "/live", Origin="null")[0] == 403
        status, _, headers = get(bridge, "/status.json", Host=f"localhost:{port}", Origin=f"http://localhost:{port}")
        assert status == 200
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        for path in ("/monitor.html/../../pyproject.toml", "/..%2f..%2fetc/passwd", "/monitor.py"):
            assert get(bridge, path)[0] == 404


def test_the_page_needs_the_token() -> None:
    with running(token="secret") as bridge:
        assert get(bridge, "/status.json")[0] == 401
        assert get(bridge, "/status.json", Authorization="Bearer secre")[0] == 401
        assert get(bridge, "/status.json", Authorization="Bearer secret")[0] == 200
        status, _, headers = get(bridge, "/monitor.html?token=secret")
        assert status == 200
        cookie = headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert get(bridge, "/status.json", Cookie=cookie.partition(";")[0])[0] == 200
        assert fetch_status(bridge.http_port, "secret")["streams"] == []
        with pytest.raises(StemProverError, match="--token-file"):
            fetch_status(bridge.http_port)


def test_the_status_table_for_the_terminal() -> None:
    from rich.console import Console

    with running() as bridge, Client(48000, 2, 2, port=bridge.port, name="lead vocal") as client:
        client.process(np.zeros((2, 512), np.float32), np.zeros((2, 512), np.float32))
        console = Console(width=160, record=True, file=io.StringIO())
        console.print(status_table(fetch_status(bridge.http_port)))
        text = console.export_text()
        latency = client.latency_samples
    for expected in ("lead vocal", "48000 Hz, 2 + 2 mix", f"{latency} ({1000 * latency / 48000:.0f} ms)", "general"):
        assert expected in text
    hint = f"no bridge answers at 127.0.0.1:{bridge.http_port}; start one with: stemprover serve"
    with pytest.raises(BridgeLostError, match=f"^{hint}$"):
        fetch_status(bridge.http_port)


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (make browser)")
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    """Presets chosen on the page change the audio, the console shows no errors, and the page fits a phone."""
    make = FakeModelRepairer({"bleed": 1.0})
    with running(make) as bridge, Client(44100, 2, port=bridge.port, name="lead") as client:
        block = np.full((2, 1024), 0.25, np.float32)
        with Browser(tmp_path) as page:
            page.open(f"http://127.0.0.1:{bridge.http_port}/monitor.html")
            page.until("document.querySelectorAll('.stream').length === 1")
            for _ in range(20):
                out = client.process(block, offline=True)
            assert (out == 0.25).all()
            page.run(
                "const select = document.querySelector('.preset'); select.value = 'bleed';"
                "select.dispatchEvent(new Event('change'))"
            )
            deadline = time.monotonic() + 10
            while not (out == 0.5).all() and time.monotonic() < deadline:
                out = client.process(block, offline=True)
            assert (out == 0.5).all()
            page.until("document.querySelector('.facts').textContent.includes('Using bleed')")
            page.until("document.querySelector('.wet').value > -40 && document.querySelector('.dry').value > -40")
            page.run(
                "const wet = document.querySelector('.wetness'); wet.value = '0.5';"
                "wet.dispatchEvent(new Event('input'))"
            )
            deadline = time.monotonic() + 10
            while not np.allclose(out, 0.375) and time.monotonic() < deadline:
                out = client.process(block, offline=True)
            assert np.allclose(out, 0.375)
            page.run(
                "const blend = document.querySelector('[data-preset=bleed]'); blend.value = '0.5';"
                "blend.dispatchEvent(new Event('change'))"
            )
            page.until("document.querySelector('.preset').value.includes('bleed')")
            page.screenshot(tmp_path / "wide.png")
            assert page.run("document.documentElement.scrollWidth <= innerWidth")
            page.resize(390, 800)
            assert page.run("document.documentElement.scrollWidth <= innerWidth"), (
                "the page does not scroll sideways on a phone"
            )
            page.screenshot(tmp_path / "phone.png")
            assert matplotlib.image.imread(tmp_path / "phone.png")[..., :3].std() > 0.05
            assert page.errors() == []


def test_the_page_loads_nothing_from_other_sites() -> None:
    folder = ROOT / "bridge" / "server"
    for name in ("monitor.html", "monitor.css", "monitor.js"):
        text = (folder / name).read_text()
        assert "https://" not in text
        assert "innerHTML" not in text
        if name == "monitor.html":
            assert "<script>" not in text
            assert "style=" not in text
