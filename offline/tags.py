"""Copies tags, pictures and other chunks from the stem to the repaired file, once its audio is written.

WAV, RF64, AIFF and CAF: all chunks (riff.py). FLAC, Ogg and MP3: all tags, pictures, cue sheets and application
data, with mutagen, because libsndfile has only ten text fields and no pictures. Between other file types: libsndfile's
text fields, which AudioWriter sets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .audiofile import STRINGS, AudioInfo
from .riff import content_of, copy_chunks, read_chunks, speakers

_FAMILIES = ({"WAV", "WAVEX", "RF64"}, {"AIFF"}, {"CAF"}, {"FLAC"}, {"OGG"}, {"MP3"})
_CHUNKED = {"WAV", "WAVEX", "RF64", "AIFF", "CAF"}
_APPLICATION = 2  # a kind of block in FLAC
# True of the old encoding alone: the encoder's delay, its settings, tables of positions, how to undo mp3gain.
_STALE_ID3 = ("COMM:iTunSMPB", "TXXX:iTunSMPB", "TSSE", "MLLT", "ASPI", "SEEK")
_STALE_WORDS = ("itunsmpb", "mp3gain_", "encoder_options")
# Where the text fields of libsndfile come from.
_STRING_ID3 = {"TIT2", "TPE1", "TALB", "TDRC", "TCON", "TRCK", "COMM", "TCOP", "TSSE"}
_USUAL_MASKS = {3: 7, 4: 0x33, 5: 0x37, 6: 0x3F, 7: 0x13F, 8: 0x63F}


def carries_all_tags(source: AudioInfo, container: str) -> bool:
    """Whether `copy_tags` copies everything between these two file types by itself."""
    return any(source.container in family and container in family for family in _FAMILIES)


def copy_tags(source: AudioInfo, target: Path, subtype: str) -> str:
    """Copy the tags of `source` into the complete file `target`. Returns a note if that failed, else "".

    Raises OSError for errors of the file system.
    """
    if source.container in _CHUNKED:
        copy_chunks(source.path, target)
        return ""
    import mutagen

    try:
        if source.container == "MP3":
            _copy_mp3(source.path, target)
        elif source.container == "FLAC":
            _copy_flac(source.path, target)
        else:
            _copy_ogg(source, target, subtype)
    except mutagen.MutagenError as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, OSError):
            raise cause from error
        return f"tags could not be copied ({error})"
    return ""


def _copy_mp3(source: Path, target: Path) -> None:
    import mutagen.apev2
    import mutagen.id3

    if (tags := _open(mutagen.id3.ID3, source)) is not None:
        for name in _STALE_ID3:
            tags.delall(name)
        if tags.version[:2] == (2, 3):  # which some players need
            tags.update_to_v23()
            tags.save(target, v2_version=3)
        else:
            tags.save(target)
    if (tags := _open(mutagen.apev2.APEv2, source)) is not None:
        _drop_stale(tags)
        if len(tags):
            tags.save(target)


def _copy_flac(source: Path, target: Path) -> None:
    import mutagen.flac

    old, new = mutagen.flac.FLAC(source), mutagen.flac.FLAC(target)
    has_tags = _copy_comments(old, new)
    blocks = [b for b in old.metadata_blocks if isinstance(b, mutagen.flac.CueSheet) or b.code == _APPLICATION]
    for block in blocks:
        new.metadata_blocks.append(block)
        if isinstance(block, mutagen.flac.CueSheet):
            new.cuesheet = block
    for picture in old.pictures:
        new.add_picture(picture)
    padding = sum(b.length for b in old.metadata_blocks if isinstance(b, mutagen.flac.Padding))
    if has_tags or blocks or old.pictures or padding:
        new.save(padding=lambda _: padding)


def _copy_ogg(source: AudioInfo, target: Path, subtype: str) -> None:
    import mutagen.oggopus
    import mutagen.oggvorbis

    kinds = {"OPUS": mutagen.oggopus.OggOpus, "VORBIS": mutagen.oggvorbis.OggVorbis}
    new = kinds[subtype](target)
    if _copy_comments(kinds[source.subtype](source.path), new):
        new.save()


def _copy_comments(old: Any, new: Any) -> bool:
    if not old.tags:
        return False
    new.delete()
    if new.tags is None:
        new.add_tags()
    new.tags.extend(old.tags)
    _drop_stale(new.tags)
    return True


def _drop_stale(tags: Any) -> None:
    for name in [key for key in dict(tags) if key.lower().startswith(_STALE_WORDS)]:
        del tags[name]


def _open(kind: Any, path: Path) -> Any:
    """The tags of this kind, or None if the file has none. Raises MutagenError."""
    import mutagen.apev2
    import mutagen.id3

    try:
        return kind(path)
    except (mutagen.id3.ID3NoHeaderError, mutagen.apev2.APENoHeaderError):
        return None


def left_out(source: AudioInfo, container: str) -> str:
    """A note about what cannot be carried over from `source` to another type of file, "" if there is nothing.

    Raises OSError.
    """
    import mutagen

    try:
        items = list(_beside_audio(source))
    except mutagen.MutagenError:
        items = ["tags that cannot be read"]
    if not items:
        return ""
    return f"not carried over to {container}: {', '.join(items)}"


def _beside_audio(source: AudioInfo) -> Iterable[str]:
    """What a file has beside its audio and the text fields of libsndfile, in words."""
    if (chunks := read_chunks(source.path)) is not None:
        for chunk in chunks.extra:
            text = chunk.name in (b"NAME", b"AUTH", b"ANNO", b"(c) ", b"info")
            if not text and not (chunk.name == b"LIST" and content_of(source.path, chunk).startswith(b"INFO")):
                yield chunk.name.decode("latin-1").strip()
        mask = int.from_bytes(speakers(source.path, chunks)[:4], "little")
        if source.channels > 2 and mask not in (0, _USUAL_MASKS.get(source.channels, 0)):
            yield f"channel mask {mask:#x}"
        return
    import mutagen.apev2
    import mutagen.flac
    import mutagen.id3
    import mutagen.oggopus
    import mutagen.oggvorbis

    if source.container == "MP3":
        frames = Counter(frame.FrameID for frame in (_open(mutagen.id3.ID3, source.path) or {}).values())
        yield from sorted(set(frames) - _STRING_ID3)
        yield from (_open(mutagen.apev2.APEv2, source.path) or {}).keys()
        return
    kinds = {"FLAC": mutagen.flac.FLAC, "VORBIS": mutagen.oggvorbis.OggVorbis, "OPUS": mutagen.oggopus.OggOpus}
    kind = kinds.get("FLAC" if source.container == "FLAC" else source.subtype)
    if kind is None:
        return
    file = kind(source.path)
    yield from sorted(key for key in dict(file.tags or {}) if key.lower() not in (*STRINGS, "encoder"))
    if isinstance(file, mutagen.flac.FLAC):
        if file.cuesheet:
            yield "the cue sheet"
        if file.pictures:
            yield f"{len(file.pictures)} picture{'s' if len(file.pictures) > 1 else ''}"
        if any(block.code == _APPLICATION for block in file.metadata_blocks):
            yield "application data"
