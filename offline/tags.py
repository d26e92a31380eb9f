"""Copies tags, pictures and other chunks from the stem to the repaired file, once its audio is written.

WAV, RF64 and AIFF: all chunks (riff.py). FLAC, Ogg and MP3: all tags and pictures, with mutagen, because libsndfile has
only ten text fields and no pictures. Between other file types: libsndfile's text fields, which AudioWriter sets.
"""

from __future__ import annotations

from pathlib import Path

from .audiofile import AudioInfo
from .riff import copy_chunks

_CHUNKED = {"WAV", "WAVEX", "RF64", "AIFF"}
_TAGGED = {"FLAC", "OGG", "MP3"}


def carries_all_tags(source: AudioInfo, container: str) -> bool:
    """Whether `copy_tags` copies everything between these two file types by itself."""
    family = {"WAVEX": "WAV", "RF64": "WAV"}
    return source.container in _CHUNKED | _TAGGED and (
        family.get(source.container, source.container) == family.get(container, container)
    )


def copy_tags(source: AudioInfo, target: Path, subtype: str) -> str:
    """Copy the tags of `source` into the complete file `target`. Returns a note if that failed, else "".

    Raises OSError for errors of the file system.
    """
    if source.container in _CHUNKED:
        copy_chunks(source.path, target)
        return ""
    import mutagen
    import mutagen.flac
    import mutagen.id3
    import mutagen.oggopus
    import mutagen.oggvorbis

    try:
        if source.container == "MP3":
            try:
                mutagen.id3.ID3(source.path).save(target)
            except mutagen.id3.ID3NoHeaderError:
                return ""
            return ""
        kind = {"FLAC": mutagen.flac.FLAC, "OPUS": mutagen.oggopus.OggOpus}.get(
            source.container if source.container == "FLAC" else subtype, mutagen.oggvorbis.OggVorbis
        )
        old, new = kind(source.path), kind(target)
        if old.tags:
            new.delete()
            if new.tags is None:
                new.add_tags()
            new.tags.extend(old.tags)
        for picture in getattr(old, "pictures", ()):
            new.add_picture(picture)
        if old.tags or getattr(old, "pictures", ()):
            new.save()
    except mutagen.MutagenError as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, OSError):
            raise cause from error
        return f"tags could not be copied ({error})"
    return ""
