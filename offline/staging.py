"""The files of a song on this machine. Those at an address lie in a temporary folder until the song is finished."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from ..engine.errors import OutputExistsError, StemProverError
from . import address
from .address import Address
from .outfile import check_output


class Staging:
    """A context for one song. Paths that are no address stay what they are."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._places: dict[Address, Path] = {}

    def __enter__(self) -> Staging:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def local(self, path: Path) -> Path:
        """Where a file is, or will be, on this machine."""
        if not isinstance(path, Address):
            return path
        if path not in self._places:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="stemprover-")
            # A stem's folder may say what it is, so it keeps its name.
            place = Path(self._folder.name) / str(len(self._places)) / path.parent.name / path.name
            place.parent.mkdir(parents=True)
            self._places[path] = place
        return self._places[path]

    def read(self, path: Path) -> Path:
        """A file on this machine, fetched if it is not there. Raises AudioFileError, OptionError."""
        place = self.local(path)
        if isinstance(path, Address) and not place.exists():
            address.fetch(path, place)
        return place

    def store(self, target: Path) -> None:
        """Copy a result to its address. Raises OutputError."""
        if isinstance(target, Address):
            address.store(self.local(target), target)

    def check_output(self, target: Path, inputs: Iterable[Path], *, overwrite: bool) -> None:
        """As `outfile.check_output`."""
        if not isinstance(target, Address):
            check_output(target, inputs, overwrite=overwrite)
        elif target in set(inputs):
            raise OutputExistsError(f"{target} is an input and is never overwritten; choose another output")
        elif not overwrite and target.exists():
            raise OutputExistsError(f"{target} already exists; choose another output or add --overwrite")

    def named(self, error: StemProverError) -> StemProverError:
        """The error with the addresses' names in place of the temporary ones."""
        text = str(error)
        for path, place in self._places.items():
            text = text.replace(str(place), str(path))
        return error if text == str(error) else type(error)(text)
