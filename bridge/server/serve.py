"""`stemprover serve`: a bridge as a process, from its options to its end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import secrets
import signal
import sys
from pathlib import Path

import platformdirs

from ...engine.errors import OptionError
from ..client.client import TOKEN_VARIABLE
from .registry import BridgeConfig
from .transport import Bridge, quicken_threads


def read_token(file: Path | None) -> str | None:
    """The token in `file`, which is made (for its owner alone) where there is none; else the environment's; else None.
    Raises OptionError for a file that others can read."""
    if file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
                new.write(secrets.token_urlsafe(24) + "\n")
        if os.name == "posix" and file.stat().st_mode & 0o077:
            raise OptionError(f"--token-file {file} can be read by others; run: chmod 600 {file}")
        token = file.read_text().strip()
    except OSError as error:
        raise OptionError(f"--token-file {file}: {error.strerror}; name another file") from error
    except UnicodeDecodeError as error:
        raise OptionError(f"--token-file {file} is no text; name another file") from error
    if not token:
        raise OptionError(f"--token-file {file} is empty; delete it, and a token is made")
    return token


def default_jobs_file() -> Path:
    """Where jobs are kept if nothing else is said: the system's place for a program's state."""
    return Path(platformdirs.user_state_dir("stemprover", appauthor=False)) / "jobs.sqlite"


class CalmFilter(logging.Filter):
    """Lets `most` lines a second through, and says how many it kept back: what clients do must not fill a disk."""

    def __init__(self, most: int = 50) -> None:
        super().__init__()
        self.most = most
        self._second, self._count = 0, 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this line is written."""
        second = int(record.created)
        if second != self._second:
            kept = max(0, self._count - self.most)
            self._second, self._count = second, 0
            if kept:
                record.msg, record.args = f"{record.getMessage()} lines-kept-back={kept}", None
        self._count += 1
        return self._count <= self.most


def serve(
    *,
    host: str,
    port: int,
    http_port: int,
    token_file: Path | None,
    roots: tuple[Path, ...],
    jobs_file: Path | None,
    most_streams: int | None,
    threads: int | None,
    device: str,
    verbose: bool,
) -> None:
    """Runs until SIGTERM or Ctrl-C. Raises OptionError, StemProverError (a port that is taken)."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
        force=True,
    )
    logging.getLogger().handlers[0].addFilter(CalmFilter())
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    config = BridgeConfig(
        host=host,
        port=port,
        http_port=http_port,
        token=read_token(token_file),
        roots=roots,
        jobs_file=(jobs_file or default_jobs_file()) if roots else None,
        most_streams=most_streams,
        threads=threads,
        device=device,
    )
    quicken_threads()
    asyncio.run(_serve(config))


async def _serve(config: BridgeConfig) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(number, ended.set)
    async with Bridge(config) as bridge:
        print(
            f"stemprover bridge: OSC {config.host}:{bridge.port} (TCP, UDP), "
            f"monitor http://127.0.0.1:{bridge.http_port}/monitor.html",
            flush=True,
        )
        models = bridge.hub.models
        model = models.get(bridge.hub.general, "standard")
        models.when_loaded(model, lambda: loop.call_soon_threadsafe(_settle_memory))
        await ended.wait()


def _settle_memory() -> None:
    """What is there once the model is loaded stays: have the garbage collector look at it no more, which takes it tens
    of milliseconds each time."""
    gc.collect()
    gc.freeze()
