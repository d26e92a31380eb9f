"""MP3 files as the field has them: without a length in their header, joined, behind junk. None loses a sample."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import mutagen.id3
import numpy as np
import pytest
import soundfile
from fakes import FakeRepairer
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from stemprover.engine.errors import AudioFileError
from stemprover.offline.audiofile import AudioReader, probe, read_start
from stemprover.offline.mp3 import read_layout
from stemprover.offline.render import render_file

TAIL = b"TAG" + b"title".ljust(125, b"\0")  # ID3v1
HEAD = b"ID3\x03\x00\x00\x00\x00\x00\x0a" + bytes(10)
OTHER_FILES = (b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b"caff", b"fLaC", b"OggS", b".snd", b"ID3", b"TAG")
FRAME = 384  # bytes, at 48 kHz and 128 kbit/s


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A second at 48 kHz with an Info frame, 128 kbit/s, so that all frames have the same size."""
    path = tmp_path_factory.mktemp("mp3") / "a.mp3"
    time_s = np.arange(48000) / 48000
    sound = 0.4 * np.sin(2 * np.pi * 440 * time_s)[:, None] * np.ones(2)
    with soundfile.SoundFile(
        path, "w", 48000, 2, "MPEG_LAYER_III", format="MP3", compression_level=0.6, bitrate_mode="CONSTANT"
    ) as file:
        file.write(sound)
    content = path.read_bytes()
    assert content[36:40] == b"Info"
    return content


def frame_bytes(encoded: bytes) -> int:
    """The size of all frames."""
    second = encoded.index(encoded[:2], 4)
    assert len(encoded) % second == 0
    return second


@pytest.fixture(scope="module")
def plain(encoded: bytes) -> bytes:
    """The same frames without the Info frame, as older encoders and streams have them."""
    return encoded[frame_bytes(encoded) :]


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], np.ndarray]:
    """Reads bytes as an MP3 file (C, T), and checks that its header told the length."""

    def read_bytes(content: bytes) -> np.ndarray:
        path = tmp_path / "a.mp3"
        path.write_bytes(content)
        info = probe(path)
        with AudioReader(info) as reader:
            audio = np.concatenate(list(reader.blocks()), axis=1)
        assert audio.shape[1] == info.samples
        return audio

    return read_bytes


def test_a_file_without_a_length_in_its_header_is_read_whole(encoded: bytes, plain: bytes, read: Callable) -> None:
    whole, audio = read(encoded), read(plain)
    assert audio.shape[1] == 1152 * (len(plain) // frame_bytes(encoded))
    assert whole.shape[1] == 48000
    delay = 1105  # of LAME and the decoder, which only the Info frame tells
    np.testing.assert_allclose(audio[:, delay : delay + 48000], whole, atol=1e-6)


@pytest.mark.parametrize("bitrate_mode", ["VARIABLE", "AVERAGE", "CONSTANT"])
@pytest.mark.parametrize(("rate", "channels"), [(44100, 2), (44100, 1), (22050, 2), (11025, 1), (32000, 2)])
def test_every_kind_of_file_keeps_its_length_without_its_info_frame(
    tmp_path: Path, read: Callable, bitrate_mode: str, rate: int, channels: int
) -> None:
    path = tmp_path / "b.mp3"
    sound = 0.3 * np.random.default_rng(0).standard_normal((rate, channels))
    sound[rate // 2 :] *= 0.01  # so that a variable rate varies
    settings = {"bitrate_mode": bitrate_mode, "format": "MP3", "subtype": "MPEG_LAYER_III"}
    with soundfile.SoundFile(path, "w", rate, channels, **settings) as file:
        file.write(sound)
    content = path.read_bytes()
    assert read(content).shape == (channels, rate)
    tag = content.find(b"Xing") if b"Xing" in content[:200] else content.find(b"Info")
    content = content[:tag] + bytes(140) + content[tag + 140 :]  # now it is a frame of silence
    samples = read(content).shape[1]
    assert samples % (576 if rate < 32000 else 1152) == 0
    assert rate < samples < rate + 5000


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_joined_files_are_read_one_after_another(
    encoded: bytes, plain: bytes, read: Callable, data: st.DataObject
) -> None:
    kinds = data.draw(st.lists(st.sampled_from(["info", "plain", "tagged"]), min_size=2, max_size=4))
    pieces = {"info": encoded, "plain": plain, "tagged": HEAD + encoded + TAIL}
    audio = read(b"".join(pieces[kind] for kind in kinds))
    # An Info frame's padding is only left out where the file that it belongs to ends.
    lengths = [48000 if kind != "plain" else 1152 * (len(plain) // frame_bytes(encoded)) for kind in kinds]
    assert sum(lengths) <= audio.shape[1] <= sum(lengths) + 1152 * len(kinds)
    tone = np.abs(audio[0]).reshape(-1)
    quiet = sum(1 for start in range(0, len(tone) - 480, 480) if tone[start : start + 480].max() < 0.1)
    assert quiet <= 10 * len(kinds), "there is sound all the way"


def test_an_info_frame_without_the_encoder_may_count_itself(encoded: bytes, plain: bytes, read: Callable) -> None:
    size = frame_bytes(encoded)
    count = len(plain) // size
    for told in (count, count + 1):
        info = encoded[:40] + struct.pack(">II", 1, told) + bytes(size - 48)
        np.testing.assert_array_equal(read(info + plain), read(plain))


def test_a_file_without_frames_is_refused(encoded: bytes, tmp_path: Path) -> None:
    info = bytearray(encoded[: frame_bytes(encoded)])
    info[44:48] = bytes(4)  # no frames
    (tmp_path / "a.mp3").write_bytes(info)
    with pytest.raises(AudioFileError, match=r"contains no audio|is not a readable audio file"):
        probe(tmp_path / "a.mp3")


def test_a_joined_file_is_reported(encoded: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(encoded + encoded)
    report = render_file(path, tmp_path / "out.wav", FakeRepairer())
    assert "2 MP3 files joined into one: read one after another" in report.notes
    np.testing.assert_array_equal(read_start(path)[:, 48000:], read_start(path)[:, :48000])
    assert soundfile.info(tmp_path / "out.wav").frames == 96000


@given(junk=st.binary(max_size=300), before=st.sampled_from([b"", HEAD, b"<html>" * 50, b"\xff\xfb\x90\x00" * 3]))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_before_the_first_frame_change_nothing(
    encoded: bytes, read: Callable, junk: bytes, before: bytes
) -> None:
    assume(not junk.startswith(OTHER_FILES))
    np.testing.assert_array_equal(read(before + junk + bytes(4) + encoded), read(encoded))


@given(cut=st.integers(1, 15000), has_info=st.booleans())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_that_is_cut_off_is_refused(
    encoded: bytes, plain: bytes, tmp_path: Path, cut: int, has_info: bool
) -> None:
    content = encoded if has_info else plain
    whole_frames = cut % frame_bytes(encoded) == 0
    path = tmp_path / "a.mp3"
    path.write_bytes(content[:-cut])
    if whole_frames and not has_info:
        assert probe(path).samples == 1152 * ((len(plain) - cut) // frame_bytes(encoded)), "nobody can know"
        return
    with pytest.raises(AudioFileError, match=r"is cut off.* get a complete copy"):
        probe(path)


@pytest.mark.parametrize("tail", [b"", TAIL, bytes(5000), b"APETAGEX" + struct.pack("<4I8x", 2000, 32, 0, 0)])
def test_tags_and_padding_at_the_end_are_not_audio(encoded: bytes, plain: bytes, read: Callable, tail: bytes) -> None:
    for content in (encoded, plain):
        assert read(content + tail).shape == read(content).shape


def test_bytes_at_the_end_are_reported(plain: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(plain + b"hello" * 100)
    assert probe(path).notes == ("500 bytes at the end are not audio: left out",)


def test_damage_in_the_middle_is_refused(plain: bytes, encoded: bytes, tmp_path: Path) -> None:
    path, size = tmp_path / "a.mp3", frame_bytes(encoded)
    for content in (
        plain[: 10 * size] + b"x" * 2000 + plain[10 * size :],
        plain[: 10 * size - 50] + plain,
        plain[: 10 * size] + b"x" * 3 * size + plain[13 * size :],
    ):
        path.write_bytes(content)
        with pytest.raises(AudioFileError, match=r"is damaged: .* at 0:00\.\d+ .*; get a complete copy"):
            probe(path)


def test_pieces_of_different_rates_are_refused(plain: bytes, make_audio: Callable[..., Path]) -> None:
    path = make_audio("other.mp3", subtype="MPEG_LAYER_III", rate=44100)
    path.write_bytes(plain + path.read_bytes())
    with pytest.raises(AudioFileError, match=r"changes its sample rate or channels at 0:01.0.*; cut it in two there"):
        probe(path)


def test_free_format_is_read(plain: bytes, encoded: bytes, read: Callable) -> None:
    size = frame_bytes(encoded)
    free = bytearray(plain)
    for start in range(0, len(plain), size):
        free[start + 2] &= 0x0F
    np.testing.assert_array_equal(read(bytes(free)), read(plain))


def test_layers_one_and_two_have_their_frames_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.mp2"
    frame = bytes([0xFF, 0xFD, 0x84, 0x00]) + bytes(380)  # layer II, 128 kbit/s at 48 kHz
    path.write_bytes(frame * 20)
    layout = read_layout(path)
    assert layout is not None
    assert layout.samples == 20 * 1152


@given(content=st.binary(max_size=400), start=st.sampled_from([b"", b"ID3", b"\xff\xfb\x90\x64", HEAD, TAIL]))
def test_arbitrary_bytes_do_not_fail(tmp_path_factory: pytest.TempPathFactory, content: bytes, start: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.mp3"
    path.write_bytes(start + content + b"x")
    read_layout(path)


def test_a_title_is_carried_to_another_type(encoded: bytes, tmp_path: Path) -> None:
    path, out = tmp_path / "a.mp3", tmp_path / "out.wav"
    path.write_bytes(encoded)
    tags = mutagen.id3.ID3()
    tags.add(mutagen.id3.TIT2(encoding=3, text="Vocal"))
    tags.save(path)
    render_file(path, out, FakeRepairer())
    with soundfile.SoundFile(out) as file:
        assert file.title == "Vocal"
