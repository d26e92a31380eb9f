"""Files that are not on this machine's file systems: `s3://bucket/song/vocals.wav`, and whatever else fsspec reads."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.errors import AudioFileError, OptionError, OutputError, StemProverError

if TYPE_CHECKING:
    _Base = Path
else:
    _Base = type(Path())


class Address(_Base):
    """A path with a scheme. Nothing of this machine's file systems knows it; what looks at files raises OptionError and
    OutputError."""

    def __str__(self) -> str:
        first, *rest = self.parts or ("",)
        return f"{first}//{'/'.join(rest)}" if first.endswith(":") else "/".join(self.parts)

    def absolute(self) -> Address:
        """As it is."""
        return self

    def resolve(self, strict: bool = False) -> Address:
        """As it is."""
        return self

    def exists(self, **_: Any) -> bool:
        """Whether there is a file or folder."""
        return size(self) is not None

    def is_dir(self, **_: Any) -> bool:
        """Whether this is a folder, or the beginning of other files' names."""
        files, path = _open(self)
        with _unreachable(self):
            return bool(files.isdir(path))


def is_address(text: str) -> bool:
    """Whether a text begins with a scheme (not `file:`), as `s3://bucket` or a Path of it do."""
    scheme, colon, rest = text.partition(":")
    return bool(colon) and scheme.isalnum() and len(scheme) > 1 and rest.startswith("/") and scheme != "file"


def place(text: str, base: Path | None = None) -> Path:
    """The path or address that a text names. base: the folder of relative paths."""
    if is_address(text):
        return Address(text)
    path = Path(text.removeprefix("file://"))
    return path if base is None else base / path


def walk(folder: Path, onerror: Callable[[OSError], object]) -> Iterator[tuple[Path, list[str], list[str]]]:
    """As `os.walk`, with paths."""
    if not isinstance(folder, Address):
        for root, names, found in os.walk(folder, onerror=onerror):
            yield Path(root), names, found
        return
    files, path = _open(folder)
    with _unreachable(folder):
        for root, names, found in files.walk(path, detail=False, on_error="raise"):
            yield place(files.unstrip_protocol(root)), names, found


def fetch(address: Address, target: Path) -> None:
    """Copy a file to this machine. Raises AudioFileError, OptionError."""
    files, path = _open(address)
    try:
        files.get_file(path, str(target))
    except FileNotFoundError:
        raise AudioFileError(f"{address} does not exist; check its spelling") from None
    except Exception as error:
        raise AudioFileError(f"{address} cannot be read: {_reason(error)}") from error


def store(source: Path, address: Address) -> None:
    """Copy a file from this machine, under another name until it is complete. Raises OutputError, OptionError."""
    with _part(address) as (files, part):
        files.put_file(str(source), part)


def write_text(text: str, address: Address) -> None:
    """As `store`, for a text."""
    with _part(address) as (files, part):
        files.pipe_file(part, text.encode())


def read_text(address: Address) -> str:
    """A whole file; "" if there is none. Raises OutputError, OptionError."""
    files, path = _open(address)
    with _unreachable(address):
        try:
            content: bytes = files.cat_file(path)
        except FileNotFoundError:
            return ""
        return content.decode("utf-8", "replace")


def size(address: Address) -> int | None:
    """In bytes, 0 for a folder; None if there is no such file. Raises OutputError, OptionError."""
    files, path = _open(address)
    files.invalidate_cache()
    with _unreachable(address):
        try:
            return int(files.info(path)["size"] or 0)
        except FileNotFoundError:
            return None


def version(address: Address) -> str:
    """Another text as soon as the file changes, such as its entity tag. Raises OSError."""
    files, path = _open(address)
    try:
        return str(files.checksum(path))
    except StemProverError:
        raise
    except Exception as error:
        raise OSError(_reason(error)) from error


@contextlib.contextmanager
def _part(address: Address) -> Iterator[tuple[Any, str]]:
    """A name to write to, which becomes the address's."""
    files, path = _open(address)
    folder, _, name = path.rpartition("/")
    part = f"{folder}/.{name}.{secrets.token_hex(4)}.part"
    try:
        files.makedirs(folder, exist_ok=True)
        yield files, part
        files.mv(part, path)
    except Exception as error:
        with contextlib.suppress(Exception):
            files.rm_file(part)
        raise OutputError(f"{address} cannot be written: {_reason(error)}") from error


@contextlib.contextmanager
def _unreachable(address: Address) -> Iterator[None]:
    """Errors of the server or store as OutputError."""
    try:
        yield
    except StemProverError:
        raise
    except Exception as error:
        raise OutputError(f"{address} cannot be reached: {_reason(error)}") from error


def _open(address: Address) -> tuple[Any, str]:
    """fsspec's file system and its path of an address. Raises OptionError."""
    try:
        import fsspec
    except ModuleNotFoundError as error:
        raise OptionError(
            f"{address} needs fsspec, which is not installed; run: pip install '.[remote]' in the source folder"
        ) from error
    try:
        files, path = fsspec.core.url_to_fs(str(address))
    except (ImportError, ValueError) as error:  # the scheme's own package is missing, or no such scheme
        raise OptionError(f"{address} cannot be opened: {_reason(error)}") from error
    return files, path


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
