"""What a repair took out of a stem, to listen to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .audiofile import AudioReader, AudioWriter, probe
from .formats import check_space, choose_format
from .mix_reader import MixReader
from .outfile import atomic_output


def write_removed(before: Path, after: Path, target: Path, inputs: Iterable[Path], *, overwrite: bool) -> str:
    """Write `before` less `after`, so that the result and this file sum to the stem. inputs: files that it must not
    replace. Returns a note for users, or "". Raises AudioFileError, OptionError, OutputError, OutputExistsError."""
    stem, repaired = probe(before), MixReader(probe(after))
    chosen, clipped = choose_format(stem, target), 0
    with atomic_output(target, [*inputs, before, after], overwrite=overwrite) as part:
        check_space(stem, chosen, target)
        with AudioReader(stem) as reader, AudioWriter(part, stem, chosen.container, chosen.subtype) as writer:
            for native in reader.blocks():
                audio = reader.codec.decode(native)
                encoded = writer.codec.encode(audio - repaired.take(audio.shape[1]), None)
                clipped += encoded.clipped_samples
                writer.write(encoded.native)
    return f"{target.name}: {clipped} samples went over full scale and were clipped" if clipped else ""
