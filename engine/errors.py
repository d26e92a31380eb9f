"""The errors that a user can cause or meet: one small tree.

Every message is one line that names the value and says what to do, so that the command line can print it as it is.
`exit_code` is the command line's: 2 if the user's input must change, 1 if the work failed.
"""

from __future__ import annotations

#: For str.translate: control characters (C0, DEL, C1) and those that change the direction of text, as text. Names in a
#: message come from others, and must not command a terminal or forge a line.
SHOWN = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
} | {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}


class StemProverError(Exception):
    """Root of all errors that this package raises on purpose."""

    exit_code = 1


class InputError(StemProverError):
    """Something the user passed cannot be used: a file, an option, a preset."""

    exit_code = 2


class AudioFileError(InputError):
    """A file is not audio, or is empty, truncated, without samples, or holds NaN or infinite values."""


class MixMismatchError(InputError):
    """The mix does not belong to the stem: another length, sample rate or number of channels."""


class MixLeftOutError(StemProverError):
    """The mix does not fit the stem, and the stem was not to be repaired without it."""


class OptionError(InputError):
    """An option or argument has a value that is out of range, malformed or in conflict with another."""


class OutputExistsError(InputError):
    """The output exists already, or is one of the inputs."""


class PresetError(InputError):
    """A preset is unknown or invalid; the message names the file and the key."""


class ModelError(StemProverError):
    """The model bundle or an adapter is missing or damaged."""


class OutputError(StemProverError):
    """The result cannot be written: read-only, disk full, a format that cannot hold it."""


class ExportError(StemProverError):
    """A checkpoint could not be exported, or the export does not equal the original."""


class TrainingError(StemProverError):
    """Training cannot start or go on."""
