"""Shows the bridge's state in the terminal."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from ...engine.errors import StemProverError
from .client import BridgeLostError

SECONDS = 0.5


def fetch_status(http_port: int, token: str = "") -> dict[str, Any]:
    """The state of the bridge on this machine. Raises BridgeLostError, and StemProverError if it needs a token."""
    request = urllib.request.Request(f"http://127.0.0.1:{http_port}/status.json")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy
    try:
        with direct.open(request, timeout=5.0) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise StemProverError(f"the bridge needs its token; use --token-file ({error.reason})") from error
        what = f"{error.code} {error.reason}"
        raise BridgeLostError(f"whatever answers at 127.0.0.1:{http_port} is not a bridge ({what})") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        details = "" if isinstance(reason, ConnectionRefusedError) else f" ({reason})"
        raise BridgeLostError(
            f"no bridge answers at 127.0.0.1:{http_port}{details}; start one with: stemprover serve"
        ) from error


def status_table(status: dict[str, Any]) -> Table:
    """One row per stream, with the bridge's own figures as the title."""
    streams = status["streams"]
    table = Table(
        title=f"StemProver {status['version']}: model {status['model']}, {len(streams)} of {status['carries_streams']} "
        f"streams, load {100 * status['load']:.0f}% of {status['processors']} CPU cores, "
        f"{len([job for job in status['jobs'] if job['state'] in ('queued', 'running')])} jobs"
    )
    for name in ("stream", "name", "sound", "preset", "wet", "latency", "load", "blocks", "late", "lost"):
        table.add_column(name, justify="left" if name in ("name", "sound", "preset") else "right")
    for stream in streams:
        mix = f" + {stream['mix_channels']} mix" if stream["mix_channels"] else ""
        preset = stream["preset"] if stream["preset"] == stream["now"] else f"{stream['preset']}: {stream['now']}"
        latency = stream["latency"]["total"]
        table.add_row(
            str(stream["stream"]),
            stream["name"],
            f"{stream['rate_hz']} Hz, {stream['channels']}{mix}",
            "bypass" if stream["bypass"] else preset,
            f"{stream['wet']:.2f}",
            f"{latency} ({1000 * latency / stream['rate_hz']:.0f} ms)",
            f"{100 * stream['load']:.0f}%",
            str(stream["blocks"]),
            str(stream["late"]),
            str(stream["lost"]),
            style="red" if stream["late"] or stream["trouble"] else None,
        )
    return table


def show_status(http_port: int, token: str = "", *, once: bool = False) -> None:
    """Prints the state once, or updates it until Ctrl-C."""
    console = Console()
    table = status_table(fetch_status(http_port, token))
    if once or not console.is_terminal:
        console.print(table)
        return
    with Live(table, console=console, auto_refresh=False) as live:
        try:
            while True:
                time.sleep(SECONDS)
                live.update(status_table(fetch_status(http_port, token)), refresh=True)
        except KeyboardInterrupt:
            return
