"""The live bridge: a server that repairs streams over OSC, its clients, and the DAW plug-in.

from stemprover.bridge import Client
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client.client import AsyncClient, Client

__all__ = ["PORT", "AsyncClient", "Client"]

PORT = 9140  # of OSC over TCP and UDP; HTTP is on the next
TOKEN_VARIABLE = "STEMPROVER_TOKEN"  # the environment variable with the token


def __getattr__(name: str) -> Any:
    if name not in ("AsyncClient", "Client"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .client import client  # here: files need no OSC

    return getattr(client, name)
