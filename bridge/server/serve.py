"""Runs `stemprover serve`."""

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

from ...engine.errors import SHOWN, OptionError
from .. import TOKEN_VARIABLE
from .registry import BridgeConfig
from .transport import Bridge, quicken_threads


def read_token(file: Path | None) -> str | None:
    """The token in `file`, which is created (readable by its owner only) if it does not exist; without a file the
    environment's, or None. Raises OptionError for a file that others can read."""
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
        raise OptionError(f"--token-file {file}: {error.strerror}; use another file") from error
    except UnicodeDecodeError as error:
        raise OptionError(f"--token-file {file} is not a text file; use another file") from error
    if not token:
        raise OptionError(f"--token-file {file} is empty; delete it to have a token created")
    return token


def default_jobs_file() -> Path:
    """Where jobs are stored by default: in the system's folder for a program's state."""
    return Path(platformdirs.user_state_dir("stemprover", appauthor=False)) / "jobs.sqlite"


class CalmFilter(logging.Filter):
    """Lets `most` lines a second through and reports how many it suppressed: clients must not be able to fill a
    disk."""

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
                record.msg, record.args = f"{record.getMessage()} lines-suppressed={kept}", None
        self._count += 1
        return self._count <= self.most


class OneLineFormatter(logging.Formatter):
    """Shows control characters as text: no client may forge a line, or reach the terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line, without a traceback."""
        return super().formatMessage(record).translate(SHOWN)


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
    """Runs until SIGTERM or Ctrl-C. Raises OptionError, and StemProverError if a port is taken."""
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
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLineFormatter("%(asctime)s %(levelname)s %(message)s"))
    handler.addFilter(CalmFilter())
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler], force=True)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    quicken_threads()
    if asyncio.run(_serve(config)):
        logging.shutdown()
        sys.stdout.flush()
        os._exit(0)  # the interpreter would wait for the model


async def _serve(config: BridgeConfig) -> bool:
    """Runs until a signal; returns whether a model is still being loaded."""
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
        models = bridge.registry.models
        model = models.get(bridge.registry.general, "standard")

        def loaded() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(_settle_memory)

        models.when_loaded(model, loaded)
        await ended.wait()
    return models.loading


def _settle_memory() -> None:
    """Once the model is loaded, have the garbage collector skip everything there is, which would take it tens of
    milliseconds each time."""
    gc.collect()
    gc.freeze()
