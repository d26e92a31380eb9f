"""Tags, pictures and other chunks of a file are copied to the repaired file."""

import struct
from pathlib import Path

import mutagen.apev2
import mutagen.flac
import mutagen.id3
import mutagen.mp3
import mutagen.oggopus
import mutagen.oggvorbis
import numpy as np
import pytest
import soundfile
from fakes import FakeRepairer
from hypothesis import given, settings
from hypothesis import strategies as st
from stemprover.offline.render import render_file
from stemprover.offline.riff import copy_chunks, read_chunks

PNG = b"\x89PNG\r\n\x1a\n" + bytes(3000)
# A broadcast time stamp, two markers, a loop, names, an ID3 tag and an unknown chunk of odd length.
CHUNKS = [
    (b"bext", b"take 3".ljust(602, b"\0")), (b"cue ", struct.pack("<I", 2) + bytes(48)), (b"smpl", bytes(60)),
    (b"LIST", b"INFOINAM\x06\0\0\0vocal\0IART\x04\0\0\0Ann\0"), (b"id3 ", b"ID3\x04\0\0\0\0\0\0\0"), (b"zzzz", b"odd"),
]  # fmt: skip


def add_chunks(path: Path, chunks: list[tuple[bytes, bytes]], order: str, *, before_data: bool = False) -> None:
    content = path.read_bytes()
    extra = b"".join(struct.pack(f"{order}4sI", n, len(c)) + c + b"\0" * (len(c) & 1) for n, c in chunks)
    content = content[:12] + extra + content[12:] if before_data else content + b"\0" * (len(content) & 1) + extra
    path.write_bytes(content[:4] + struct.pack(f"{order}I", len(content) - 8) + content[8:])


def contents(path: Path) -> dict[bytes, bytes]:
    found = read_chunks(path)
    assert found is not None
    data = path.read_bytes()
    return {c.name: data[c.start : c.start + c.size] for c in found.chunks}


@pytest.mark.parametrize("before_data", [True, False])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize("samples", [1, 1001])
def test_every_chunk_of_a_wav_is_copied(make_audio, tmp_path, subtype, before_data, samples):
    levels = 0.3 * np.random.default_rng(0).standard_normal((1, samples)).clip(-1, 1)
    source, target = make_audio(subtype=subtype, levels=levels), tmp_path / "out.wav"
    add_chunks(source, CHUNKS, "<", before_data=before_data)
    assert soundfile.info(source).frames == samples
    render_file(source, target, FakeRepairer())
    assert contents(target).items() >= dict(CHUNKS).items()
    assert struct.unpack("<I", target.read_bytes()[4:8])[0] == target.stat().st_size - 8
    np.testing.assert_array_equal(soundfile.read(target)[0], soundfile.read(source)[0])
    with soundfile.SoundFile(target) as file:
        assert (file.title, file.artist) == ("vocal", "Ann")


def test_chunks_of_an_rf64_file_are_copied_and_the_output_stays_rf64(make_audio, tmp_path):
    source, target = make_audio("a.wav", container="RF64"), tmp_path / "out.wav"
    content = source.read_bytes()
    extra = struct.pack("<4sI", b"bext", 602) + b"take 3".ljust(602, b"\0")
    source.write_bytes(content + extra)
    render_file(source, target, FakeRepairer())
    assert contents(target)[b"bext"].startswith(b"take 3")
    riff_size = struct.unpack("<Q", contents(target)[b"ds64"][:8])[0]
    assert riff_size == target.stat().st_size - 8
    assert soundfile.info(target).format == "RF64"


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_every_chunk_of_an_aiff_is_copied(make_audio, tmp_path, subtype):
    source, target = make_audio("a.aiff", subtype=subtype), tmp_path / "out.aiff"
    chunks = [(b"NAME", b"vocal"), (b"AUTH", b"Ann"), (b"MARK", struct.pack(">H", 0)), (b"ID3 ", b"ID3\x04" + bytes(7))]
    add_chunks(source, chunks, ">")
    render_file(source, target, FakeRepairer())
    assert contents(target).items() >= dict(chunks).items()
    assert soundfile.info(target).frames == 22050


def test_chunks_about_the_old_samples_are_not_copied(make_audio, tmp_path):
    source, target = make_audio(), tmp_path / "out.wav"
    add_chunks(source, [(b"PEAK", bytes(24)), (b"levl", bytes(40)), (b"JUNK", bytes(9))], "<")
    render_file(source, target, FakeRepairer())
    assert contents(target).keys() == {b"fmt ", b"data"}


@given(content=st.binary(max_size=200))
def test_reading_chunks_of_arbitrary_bytes_does_not_fail(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.wav"
    path.write_bytes(b"RIFF\x00\x00\x00\x00WAVE" + content)
    found = read_chunks(path)
    assert found is not None
    assert found.missing_bytes >= 0
    path.write_bytes(content)
    read_chunks(path)


def test_chunks_are_not_copied_between_wav_aiff_and_flac(make_audio):
    wav, aiff, flac = make_audio("a.wav"), make_audio("a.aiff"), make_audio("a.flac")
    add_chunks(wav, CHUNKS, "<")
    for target in (aiff, flac):
        before = target.read_bytes()
        assert copy_chunks(wav, target) == 0
        assert target.read_bytes() == before


def test_flac_keeps_every_tag_and_picture(make_audio, tmp_path):
    source, target = make_audio("a.flac"), tmp_path / "out.flac"
    tags = mutagen.flac.FLAC(source)
    tags["title"] = "Vocal"
    tags["artist"] = ["Ann", "Bob"]
    tags["replaygain_track_gain"] = "-3.2 dB"
    picture = mutagen.flac.Picture()
    picture.data, picture.mime, picture.type = PNG, "image/png", 3
    tags.add_picture(picture)
    tags.save()
    assert render_file(source, target, FakeRepairer()).notes == ()
    new = mutagen.flac.FLAC(target)
    assert new["artist"] == ["Ann", "Bob"]
    assert dict(new) == dict(tags)
    assert [p.data for p in new.pictures] == [PNG]
    np.testing.assert_array_equal(soundfile.read(target)[0], soundfile.read(source)[0])


@pytest.mark.parametrize(
    ("name", "subtype", "rate", "kind"),
    [("a.ogg", "VORBIS", 44100, mutagen.oggvorbis.OggVorbis), ("a.opus", "OPUS", 48000, mutagen.oggopus.OggOpus)],
)
def test_ogg_keeps_every_tag(make_audio, tmp_path, name, subtype, rate, kind):
    source = make_audio(name, subtype=subtype, container="OGG", rate=rate)
    target = tmp_path / f"out{source.suffix}"
    tags = kind(source)
    tags["title"], tags["custom"] = "Vocal", ["one", "two"]
    tags.save()
    render_file(source, target, FakeRepairer())
    assert kind(target)["custom"] == ["one", "two"]
    assert kind(target)["title"] == ["Vocal"]
    assert soundfile.info(target).frames == soundfile.info(source).frames


def test_tags_are_copied_between_vorbis_and_opus(make_audio, tmp_path):
    source, target = make_audio("a.ogg", subtype="VORBIS", rate=48000), tmp_path / "out.opus"
    tags = mutagen.oggvorbis.OggVorbis(source)
    tags["custom"] = ["one", "two"]
    tags.save()
    render_file(source, target, FakeRepairer())
    assert mutagen.oggopus.OggOpus(target)["custom"] == ["one", "two"]


def test_mp3_keeps_every_tag_and_picture_and_its_length(make_audio, tmp_path):
    source, target = make_audio("a.mp3", subtype="MPEG_LAYER_III"), tmp_path / "out.mp3"
    tags = mutagen.id3.ID3()
    tags.add(mutagen.id3.TIT2(encoding=3, text="Vocal"))
    tags.add(mutagen.id3.TXXX(encoding=3, desc="take", text="3"))
    tags.add(mutagen.id3.APIC(encoding=3, mime="image/png", type=3, desc="", data=PNG))
    tags.save(source)
    render_file(source, target, FakeRepairer())
    new = mutagen.id3.ID3(target)
    assert (str(new["TIT2"]), str(new["TXXX:take"]), new.getall("APIC")[0].data) == ("Vocal", "3", PNG)
    assert soundfile.info(target).frames == soundfile.info(source).frames


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.mp3", "a.wav", "a.aiff"])
def test_files_without_tags_get_no_tags(make_audio, tmp_path, name):
    source = make_audio(name, subtype=None)
    target = tmp_path / f"out{source.suffix}"
    assert not [n for n in render_file(source, target, FakeRepairer()).notes if "tags" in n]
    with soundfile.SoundFile(target) as file:
        assert file.title == ""


@pytest.mark.parametrize(("source_name", "target_name"), [("a.flac", "b.wav"), ("a.wav", "b.flac"), ("a.caf", "b.caf")])
def test_title_and_artist_are_copied_between_file_types(tmp_path, source_name, target_name):
    source, target = tmp_path / source_name, tmp_path / target_name
    with soundfile.SoundFile(source, "w", 44100, 1, subtype="PCM_16") as file:
        file.title, file.artist = "Vocal", "Ann"
        file.write(np.zeros(100))
    render_file(source, target, FakeRepairer())
    with soundfile.SoundFile(target) as file:
        assert (file.title, file.artist) == ("Vocal", "Ann")


def extensible(path: Path, channels: int, mask: int, guid: str = "0000-0000-1000-8000-00aa00389b71") -> bytes:
    """Write a WAVE_FORMAT_EXTENSIBLE file of 16 bits. Returns its mask and sub-format."""
    audio = np.random.default_rng(0).integers(-9000, 9000, (100, channels)).astype("<i2").tobytes()
    speakers = struct.pack("<IH", mask, 1) + bytes.fromhex(guid.replace("-", ""))
    fmt = struct.pack("<HHIIHHHH", 0xFFFE, channels, 44100, 88200 * channels, 2 * channels, 16, 22, 16) + speakers
    chunks = struct.pack("<4sI", b"fmt ", 40) + fmt + struct.pack("<4sI", b"data", len(audio)) + audio
    path.write_bytes(struct.pack("<4sI4s", b"RIFF", 4 + len(chunks), b"WAVE") + chunks)
    return speakers


@given(channels=st.integers(1, 16), mask=st.integers(0, 0xFFFF_FFFF), ambisonic=st.booleans())
@settings(max_examples=30, deadline=None)
def test_speaker_positions_of_a_wav_are_kept(tmp_path_factory, channels, mask, ambisonic):
    folder = tmp_path_factory.getbasetemp()
    guid = "0000-2107-d311-8644-c8c1ca000000" if ambisonic else "0000-0000-1000-8000-00aa00389b71"
    speakers = extensible(folder / "mask.wav", channels, mask, guid)
    report = render_file(folder / "mask.wav", folder / "mask-out.wav", FakeRepairer(), overwrite=True)
    assert contents(folder / "mask-out.wav")[b"fmt "][20:40] == speakers
    assert report.notes == ()
    assert soundfile.info(folder / "mask-out.wav").subtype == "PCM_16"


def test_speaker_positions_that_another_type_cannot_hold_are_reported(tmp_path):
    extensible(tmp_path / "side.wav", 6, 0x60F)
    notes = render_file(tmp_path / "side.wav", tmp_path / "out.flac", FakeRepairer()).notes
    assert "not carried over to FLAC: channel mask 0x60f" in notes


def test_caf_keeps_its_channel_layout_and_its_other_chunks(make_audio, tmp_path):
    source, target = make_audio("a.caf", channels=6), tmp_path / "out.caf"
    layout = struct.pack(">4sQ", b"chan", 12) + struct.pack(">III", 0x79_0006, 0, 0)
    texts = b"\0\0\0\2title\0Vocal\0artist\0Ann\0"
    source.write_bytes(source.read_bytes() + layout + struct.pack(">4sQ", b"info", len(texts)) + texts)
    assert render_file(source, target, FakeRepairer()).notes == ()
    assert contents(target)[b"chan"] == layout[12:]
    assert contents(target)[b"info"] == texts
    with soundfile.SoundFile(target) as file:
        assert file.title == "Vocal"
    np.testing.assert_array_equal(soundfile.read(target)[0], soundfile.read(source)[0])


def test_chunks_of_a_wave64_file_are_not_read_as_audio_and_reported(make_audio, tmp_path):
    source, target = make_audio("a.w64", levels=np.full((1, 101), 0.5)), tmp_path / "out.w64"
    extra = b"bext\xf3\xac\xd3\x11\x8c\xd1\x00\xc0O\x8e\xdb\x8a" + struct.pack("<Q", 24 + 6) + b"take 3\0\0"
    source.write_bytes(source.read_bytes() + bytes(-source.stat().st_size % 8) + extra)
    notes = render_file(source, target, FakeRepairer()).notes
    assert notes == ("not carried over to W64: bext",), "libsndfile would read them as audio"
    assert soundfile.info(target).frames == 101


def full_flac(path: Path) -> mutagen.flac.FLAC:
    """Give a FLAC file a cue sheet, application data, a picture, a tag and padding."""
    file = mutagen.flac.FLAC(path)
    cue = mutagen.flac.CueSheet(None)
    cue.lead_in_samples, cue.compact_disc, cue.media_catalog_number = 88200, True, b"1234567890123"
    for number, start in ((1, 0), (2, 10000), (170, 22050)):
        track = mutagen.flac.CueSheetTrack(number, start)
        if number < 170:
            track.indexes.append(mutagen.flac.CueSheetTrackIndex(1, 0))
        cue.tracks.append(track)
    file.cuesheet = cue
    file.metadata_blocks.append(cue)
    for data in (b"riffRIFF....WAVE", b"riffbext" + bytes(610)):
        block = mutagen.flac.MetadataBlock(data)
        block.code = 2
        file.metadata_blocks.append(block)
    picture = mutagen.flac.Picture()
    picture.data, picture.mime, picture.type = PNG, "image/png", 3
    file.add_picture(picture)
    file["title"], file["mood"] = "Vocal", "calm"
    file.save(padding=lambda _: 5000)
    return mutagen.flac.FLAC(path)


def test_flac_keeps_every_block(make_audio, tmp_path):
    source, target = make_audio("a.flac"), tmp_path / "out.flac"
    old = full_flac(source)
    assert render_file(source, target, FakeRepairer()).notes == ()
    new = mutagen.flac.FLAC(target)
    assert new.cuesheet == old.cuesheet
    assert [b.write() for b in new.metadata_blocks if b.code == 2] == [
        b.write() for b in old.metadata_blocks if b.code == 2
    ]
    assert [p.data for p in new.pictures] == [PNG]
    assert [b.length for b in new.metadata_blocks if b.code == 1] == [5000]
    assert dict(new) == dict(old)
    np.testing.assert_array_equal(soundfile.read(target)[0], soundfile.read(source)[0])


def test_what_another_type_cannot_carry_is_reported_in_one_line(make_audio, tmp_path):
    flac, wav, mp3 = make_audio("a.flac"), make_audio("a.wav"), make_audio("a.mp3", subtype="MPEG_LAYER_III")
    full_flac(flac)
    add_chunks(wav, CHUNKS, "<")
    tags = mutagen.id3.ID3()
    tags.add(mutagen.id3.TIT2(encoding=3, text="Vocal"))
    tags.add(mutagen.id3.APIC(encoding=3, mime="image/png", type=3, desc="", data=PNG))
    tags.save(mp3)
    for source, target, items in (
        (flac, "1.wav", "WAV: mood, the cue sheet, 1 picture, application data"),
        (wav, "2.flac", "FLAC: bext, cue, smpl, id3, zzzz"),
        (mp3, "3.flac", "FLAC: APIC"),
    ):
        notes = render_file(source, tmp_path / target, FakeRepairer()).notes
        assert [note for note in notes if "carried" in note] == [f"not carried over to {items}"]
    assert not [
        n for n in render_file(make_audio("b.flac"), tmp_path / "4.wav", FakeRepairer()).notes if "carried" in n
    ]


def test_mp3_tags_that_are_true_of_the_old_encoding_alone_are_not_copied(make_audio, tmp_path):
    source, target = make_audio("a.mp3", subtype="MPEG_LAYER_III"), tmp_path / "out.mp3"
    tags = mutagen.id3.ID3()
    for name in ("iTunSMPB", "remark"):
        tags.add(mutagen.id3.COMM(encoding=0, lang="eng", desc=name, text=" 00000000 00000210 00000A2C"))
    tags.add(mutagen.id3.TSSE(encoding=3, text="LAME 3.100"))
    tags.save(source, v2_version=3)
    ape = mutagen.apev2.APEv2()
    ape["Title"], ape["MP3GAIN_UNDO"] = "Vocal", "+003,+003,N"
    ape.save(source)
    assert render_file(source, target, FakeRepairer()).notes == ("re-encoded as MPEG_LAYER_III, which is lossy",)
    new = mutagen.id3.ID3(target)
    assert sorted(new) == ["COMM:remark:eng"]
    assert new.version == (2, 3, 0), "some players need this version"
    assert dict(mutagen.apev2.APEv2(target)) == {"Title": "Vocal"}
    assert soundfile.info(target).frames == soundfile.info(source).frames


def test_damaged_tags_give_a_note_and_not_an_error(make_audio, tmp_path, monkeypatch):
    def fail(*_):
        raise mutagen.MutagenError("broken")

    monkeypatch.setattr(mutagen.flac.FLAC, "__init__", fail)
    report = render_file(make_audio("a.flac"), tmp_path / "out.flac", FakeRepairer())
    assert report.notes == ("tags could not be copied (broken)",)
    assert soundfile.info(tmp_path / "out.flac").frames == 22050
