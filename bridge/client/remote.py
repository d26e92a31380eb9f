"""Repairs files through a bridge."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np

from ...engine.errors import OptionError
from ..osc import MAX_BLOCK, MAX_CHANNELS
from .client import Client, Reply


class RemoteRepairer:
    """Has `process_chunks` as engine.repair.Repairer does. prepare: called with each new stream, to choose its preset.
    realtime: send at the speed of playback. options: as for Client."""

    WINDOW = 48  # blocks sent and not answered

    def __init__(
        self, prepare: Callable[[Client], None] = lambda _: None, *, realtime: bool = False, **options: Any
    ) -> None:
        self.prepare, self.realtime, self.options = prepare, realtime, options
        self.late = self.blocks = 0

    def process_chunks(
        self,
        chunks: Iterable[np.ndarray | tuple[np.ndarray, np.ndarray]],
        sample_rate: int,
        channels: int,
        *,
        has_mix: bool = False,
        role: str | None = None,
    ) -> Iterator[np.ndarray]:
        """Chunks (C, n), or pairs of stem and mix chunks, to repaired chunks, as many samples in all. role: as in
        engine.repair.Repairer.process."""
        if channels > MAX_CHANNELS:
            raise OptionError(f"{channels} channels: a bridge takes up to {MAX_CHANNELS}; use stemprover repair")
        block = min(MAX_BLOCK, 2048)
        with Client(sample_rate, channels, channels if has_mix else 0, max_block=block, **self.options) as client:
            if has_mix:
                client.set_check_mix(False)  # whoever reads the files has proved the mix
            if role is not None:
                client.set_role(role)
            self.prepare(client)
            skip, begun, sent = client.latency_samples, time.monotonic(), 0
            pending: deque[Future[Reply]] = deque()

            def arrived(audio: np.ndarray) -> Iterator[np.ndarray]:
                nonlocal skip
                drop = min(skip, audio.shape[1])
                skip -= drop
                if audio.shape[1] > drop:
                    yield audio[:, drop:]

            for chunk in chunks:
                stem, mix = chunk if isinstance(chunk, tuple) else (chunk, None)
                for start in range(0, stem.shape[1], block):
                    part = slice(start, start + block)
                    pending.append(
                        client.submit(stem[:, part], None if mix is None else mix[:, part], offline=not self.realtime)
                    )
                    sent += stem[:, part].shape[1]
                    while pending and (len(pending) >= self.WINDOW or pending[0].done()):
                        yield from arrived(pending.popleft().result().audio)
                    if self.realtime:
                        time.sleep(max(0.0, begun + sent / sample_rate - time.monotonic()))
            while pending:
                yield from arrived(pending.popleft().result().audio)
            if sent:
                yield from arrived(client.flush())
            self.late, self.blocks = client.late, client.blocks
