"""Files with mistakes in their header are read whole: sizes never filled in, missing pad bytes, joined files."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fakes import FakeRepairer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stemprover.engine.errors import AudioFileError
from stemprover.offline.audiofile import AudioReader, probe
from stemprover.offline.render import render_file
from stemprover.offline.riff import read_chunks

ENDLESS = "no length in its header: read to the end of the file"
KINDS = [
    ("a.wav", "WAV", "PCM_16"), ("a.wav", "WAV", "PCM_24"), ("a.wav", "WAV", "FLOAT"), ("a.wav", "WAVEX", "PCM_24"),
    ("a.wav", "RF64", "PCM_24"), ("a.w64", "W64", "PCM_16"), ("a.aiff", "AIFF", "PCM_24"), ("a.aiff", "AIFF", "FLOAT"),
    ("a.aifc", "AIFF", "ULAW"), ("a.caf", "CAF", "PCM_16"), ("a.au", "AU", "PCM_24"),
]  # fmt: skip


def samples_of(path: Path) -> np.ndarray:
    """All samples (C, T) as stored."""
    with AudioReader(probe(path)) as reader:
        return np.concatenate(list(reader.blocks()), axis=1)


def forget_sizes(path: Path, size: int) -> None:
    """Put `size` in place of all sizes that a writer fills in at the end."""
    content = bytearray(path.read_bytes())

    def put(at: int, code: str, value: int) -> None:
        struct.pack_into(code, content, at, value % (1 << 8 * struct.calcsize(code)))

    chunks = read_chunks(path)
    if chunks is None:
        put(8, ">I", size)
    else:
        audio = chunks.find(b"data", b"SSND")
        assert audio is not None
        if chunks.form == b"RF64":
            ds64 = chunks.find(b"ds64")
            assert ds64 is not None
            put(ds64.start, "<Q", size)
            put(ds64.start + 8, "<Q", size)
        elif chunks.form in (b"caff", b"riff"):
            put(audio.start - 8, ">Q" if chunks.form == b"caff" else "<Q", size)
        else:
            order = ">" if chunks.form == b"FORM" else "<"
            put(4, order + "I", size)
            put(audio.start - 4, order + "I", size)
    path.write_bytes(content)


@pytest.mark.parametrize("size", [0, -1, -37, 0x7FFF_F000, 0x7F00_0008])
@pytest.mark.parametrize(("name", "container", "subtype"), KINDS)
def test_a_file_whose_sizes_were_never_filled_in_is_read_to_its_end(
    make_audio: Callable[..., Path], tmp_path: Path, name: str, container: str, subtype: str, size: int
) -> None:
    path = make_audio(name, container=container, subtype=subtype)
    before = samples_of(path)
    forget_sizes(path, size)
    np.testing.assert_array_equal(samples_of(path), before)
    report = render_file(path, tmp_path / f"out{path.suffix}", FakeRepairer())
    if (container, size) != ("AU", -1):  # where it is allowed
        assert report.notes == (ENDLESS,)
    assert soundfile.info(tmp_path / f"out{path.suffix}").format == container
    np.testing.assert_array_equal(samples_of(tmp_path / f"out{path.suffix}"), before)


def test_a_file_without_audio_is_still_empty_with_chunks_behind(make_audio: Callable[..., Path]) -> None:
    path = make_audio(levels=np.zeros((1, 0)))
    path.write_bytes(path.read_bytes() + b"LIST" + struct.pack("<I", 4) + b"INFO")
    with pytest.raises(AudioFileError, match=r"contains no audio \(0 samples\)"):
        probe(path)


def test_flac_without_a_length_is_read_to_its_end(make_audio: Callable[..., Path], tmp_path: Path) -> None:
    path = make_audio("a.flac", seconds=3)
    before = samples_of(path)
    content = bytearray(path.read_bytes())
    content[21:26] = content[21] & 0xF0, 0, 0, 0, 0  # the number of samples: 36 bits of the stream information
    path.write_bytes(content)
    np.testing.assert_array_equal(samples_of(path), before)
    render_file(path, tmp_path / "out.flac", FakeRepairer())
    assert soundfile.info(tmp_path / "out.flac").frames == before.shape[1]
    path.write_bytes(content[:-100])
    with pytest.raises(AudioFileError, match="is not a readable audio file"):
        probe(path)


@pytest.mark.parametrize(
    ("name", "subtype", "rate", "kind"),
    [("a.ogg", "VORBIS", 44100, "Ogg"), ("a.opus", "OPUS", 48000, "Ogg"), ("a.flac", "PCM_16", 44100, "FLAC")],
)
def test_joined_files_are_read_one_after_another(
    make_audio: Callable[..., Path], tmp_path: Path, name: str, subtype: str, rate: int, kind: str
) -> None:
    container = "OGG" if kind == "Ogg" else None
    first = make_audio(name, subtype=subtype, rate=rate, container=container)
    second = make_audio(f"b{first.suffix}", subtype=subtype, rate=rate, container=container, seed=1)
    alone = [samples_of(path) for path in (first, second)]
    first.write_bytes(first.read_bytes() + second.read_bytes())
    np.testing.assert_array_equal(samples_of(first), np.concatenate(alone, axis=1))
    assert probe(first).notes == (f"2 {kind} files joined into one: read one after another",)
    report = render_file(first, tmp_path / "out.wav", FakeRepairer())
    assert report.duration_s == pytest.approx(1.0)
    first.write_bytes(first.read_bytes()[:-100])
    with pytest.raises(AudioFileError, match="is cut off"):
        probe(first)


def test_mp3_inside_wav_is_refused_with_its_name(make_audio: Callable[..., Path]) -> None:
    mp3 = make_audio("a.mp3", subtype="MPEG_LAYER_III").read_bytes()
    fmt = struct.pack("<HHIIHHHHIHHH", 0x55, 2, 44100, 16000, 1, 0, 12, 1, 2, 417, 1, 1105)
    body = b"fmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", len(mp3)) + mp3
    path = make_audio("b.wav")
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body)
    with pytest.raises(AudioFileError, match="is MP3 inside a WAV file, which cannot be read; convert it"):
        probe(path)


def test_different_files_joined_into_one_are_refused(make_audio: Callable[..., Path]) -> None:
    first, second = make_audio("a.flac"), make_audio("b.flac", channels=1)
    first.write_bytes(first.read_bytes() + second.read_bytes())
    with pytest.raises(AudioFileError, match="is several different files joined into one; cut them apart"):
        probe(first)


def test_the_second_of_two_joined_wav_files_is_reported(make_audio: Callable[..., Path]) -> None:
    path = make_audio()
    alone = samples_of(path)
    path.write_bytes(path.read_bytes() * 2)
    assert probe(path).notes == ("several WAV files joined into one: only the first is read",)
    np.testing.assert_array_equal(samples_of(path), alone)


def test_floats_in_an_extensible_wave64_file_are_read_as_floats(make_audio: Callable[..., Path]) -> None:
    path = make_audio("a.w64", subtype="FLOAT")
    before, content = samples_of(path), path.read_bytes()
    chunks = read_chunks(path)
    assert chunks is not None
    audio = chunks.find(b"data")
    assert audio is not None
    guid = bytes.fromhex("f3acd3118cd100c04f8edb8a")
    fmt = struct.pack("<HHIIHHHHIH", 0xFFFE, 2, 44100, 8 * 44100, 8, 32, 22, 32, 3, 3) + bytes.fromhex(
        "000000001000800000aa00389b71"
    )
    head = content[:40] + b"fmt " + guid + struct.pack("<Q", 24 + len(fmt)) + fmt
    path.write_bytes(head + content[audio.start - 24 :])
    assert probe(path).subtype == "FLOAT"
    np.testing.assert_array_equal(samples_of(path), before)


def test_bw64_is_read_and_stays_bw64(make_audio: Callable[..., Path], tmp_path: Path) -> None:
    path = make_audio(container="RF64", subtype="PCM_24")
    before = samples_of(path)
    chna = struct.pack("<4sI", b"chna", 4) + b"ADM!"
    path.write_bytes(b"BW64" + path.read_bytes()[4:] + chna)
    assert render_file(path, tmp_path / "out.wav", FakeRepairer()).notes == ()
    content = (tmp_path / "out.wav").read_bytes()
    assert content.startswith(b"BW64")
    assert content.endswith(chna)
    np.testing.assert_array_equal(samples_of(tmp_path / "out.wav"), before)


NAMES = st.sampled_from([b"iXML", b"id3 ", b"axml", b"_PMX", b"zzzz"])
CHUNK = st.tuples(NAMES, st.binary(min_size=1, max_size=80), st.booleans())


@pytest.mark.parametrize(
    ("name", "order", "kinds"), [("a.wav", "<", (b"fmt ", b"data")), ("a.aiff", ">", (b"COMM", b"SSND"))]
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.lists(CHUNK, max_size=3),
    after=st.lists(CHUNK, max_size=4),
    samples=st.integers(1, 40),
    pads=st.booleans(),
)
def test_chunks_are_kept_with_or_without_their_pad_bytes(
    make_audio: Callable[..., Path], tmp_path: Path, name: str, order: str, kinds: tuple[bytes, bytes],
    before: list, after: list, samples: int, pads: bool,
) -> None:  # fmt: skip
    rng = np.random.default_rng(samples)
    path = make_audio(name, subtype="PCM_24", levels=rng.uniform(-1, 1, (1, samples)))
    found, content = read_chunks(path), path.read_bytes()
    assert found is not None
    audio = samples_of(path)

    def chunk(name: bytes, text: bytes, padded: bool) -> bytes:
        return struct.pack(f"{order}4sI", name, len(text)) + text + b"\0" * (len(text) & 1 and padded)

    own = {c.name: content[c.start : c.start + c.size] for c in found.chunks}
    body = b"".join(
        [chunk(kinds[0], own[kinds[0]], True), *(chunk(*c) for c in before), chunk(kinds[1], own[kinds[1]], pads)]
        + [chunk(*c) for c in after]
    )
    head = content[:4] + struct.pack(f"{order}I", 4 + len(body)) + content[8:12]
    path.write_bytes(head + body)
    target = tmp_path / f"out{path.suffix}"
    render_file(path, target, FakeRepairer(), overwrite=True)
    kept, out = read_chunks(target), target.read_bytes()
    assert kept is not None
    texts = [(c.name, out[c.start : c.start + c.size]) for c in kept.chunks if c.name not in kinds]
    assert texts == [(c[0], c[1]) for c in (*before, *after)]
    np.testing.assert_array_equal(samples_of(target), audio)
    assert soundfile.info(target).frames == samples, "other programs can read it"


@pytest.mark.parametrize(
    ("tail", "kept"), [(b"ID3\x03" + bytes(20), True), (b"TAG" + bytes(125), True), (b"\x01" * 9, False)]
)
def test_tags_behind_all_chunks_are_kept_and_other_bytes_reported(
    make_audio: Callable[..., Path], tmp_path: Path, tail: bytes, kept: bool
) -> None:
    path = make_audio()
    path.write_bytes(path.read_bytes() + tail)
    notes = render_file(path, tmp_path / "out.wav", FakeRepairer()).notes
    assert (tmp_path / "out.wav").read_bytes().endswith(tail) == kept
    assert notes == (() if kept else ("9 bytes at the end belong to no chunk: left out",))
    assert soundfile.info(tmp_path / "out.wav").frames == 22050
