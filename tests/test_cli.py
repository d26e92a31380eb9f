"""The command line: what it prints, what it writes, and its exit codes (0 done, 1 failed, 2 bad input)."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fakes import FakeRepairer
from paths import ROOT
from stemprover import __version__, cli
from stemprover.engine.errors import ModelError, OptionError
from stemprover.offline.render import render_file


class BrokenRepairer(FakeRepairer):
    """A repairer with a damaged model."""

    def process_chunks(self, chunks, sample_rate, channels, *, has_mix=False, role=None):
        raise ModelError("the model file denoiser.onnx is damaged; install StemProver again")


def test_version(run_cli):
    result = run_cli("--version")
    assert (result.code, result.out) == (0, f"stemprover {__version__}\n")


@pytest.mark.parametrize("command", [[], ["repair"], ["demo"], ["presets"], ["presets", "list"], ["presets", "show"],
                                     ["presets", "check"], ["corpus"], ["corpus", "build"],
                                     ["corpus", "list"], ["export"], ["train"], ["bench"]])  # fmt: skip
def test_help_uses_no_jargon(run_cli, command):
    result = run_cli(*command, "--help")
    assert result.code == 0
    assert "Usage: stemprover" in result.out
    for jargon in ("LoRA", "tensor", "ndarray", "latent"):
        assert jargon not in result.out or command in (["export"], ["train"])


def test_help_names_every_option_of_a_repair(run_cli):
    text = run_cli("repair", "--help").out
    for option in (
        "--output",
        "--mix",
        "--preset",
        "--blend",
        "--wet",
        "--quality",
        "--steps",
        "--device",
        "--jobs",
        "--overwrite",
    ):
        assert option in text
    assert not re.search(r"--(overwrite|no-sum|no-linked) +<bool>", text)


@pytest.mark.parametrize(
    "arguments", [["repair"], ["nonsense"], ["repair", "a.wav"], ["repair", "a.wav", "-o", "b.wav", "--quality", "x"]]
)
def test_wrong_usage_exits_with_2(run_cli, arguments):
    result = run_cli(*arguments)
    assert result.code == 2
    assert "Traceback" not in result.err


def test_one_file_is_repaired(run_cli, make_audio, tmp_path):
    source = make_audio()
    result = run_cli("repair", source, "-o", tmp_path / "out.wav", repairer=FakeRepairer(gain=0.5))
    assert result.code == 0
    assert re.fullmatch(
        rf"{source} -> {tmp_path}/out.wav: 0:00.500 in [\d.]+ s, [\d.]+x real time, correction -6.0 dB\n", result.out
    )
    np.testing.assert_allclose(soundfile.read(tmp_path / "out.wav")[0], 0.5 * soundfile.read(source)[0], atol=1e-4)


@pytest.mark.parametrize(
    "name", [b"[bold]x[red].wav", "böse Überraschung 音.wav".encode(), b"bytes\xff\xfe.wav", b"-o.wav", b"a\nb.wav"]
)
@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_file_names_may_be_anything(run_cli, make_audio, tmp_path, name, subtype):
    source = tmp_path / os.fsdecode(name)
    make_audio("plain.wav", subtype=subtype).rename(source)
    result = run_cli("repair", source, "-o", tmp_path / "out", repairer=FakeRepairer())
    assert result.code == 0
    assert "unchanged" in result.out
    assert soundfile.info(os.fsencode(tmp_path / "out" / source.name)).frames == 22050
    assert "already done" in run_cli("repair", source, "-o", tmp_path / "out", repairer=FakeRepairer()).out
    if b"[" in name:
        assert str(source) in result.out


def test_folders_keep_their_structure_and_every_stem_gets_the_mix(run_cli, make_audio, tmp_path):
    stems = make_audio("stems/vocals.wav"), make_audio("stems/sub/drums.flac", seed=1)
    song = make_audio("song.wav", levels=0.7 * sum(soundfile.read(stem)[0].T for stem in stems))
    fake = FakeRepairer(gain=0.0, mix_gain=1.0)
    result = run_cli("repair", tmp_path / "stems", "-o", tmp_path / "out", "--mix", song, "--no-sum", repairer=fake)
    assert result.code == 0
    assert result.out.endswith("2 of 2 repaired\n")
    for name in ("vocals.wav", "sub/drums.flac"):
        np.testing.assert_array_equal(soundfile.read(tmp_path / "out" / name)[0], soundfile.read(song)[0])


@pytest.mark.parametrize(("repairer", "code"), [(FakeRepairer(), 2), (BrokenRepairer(), 1)])
def test_a_file_that_fails_does_not_stop_the_others(run_cli, make_audio, tmp_path, repairer, code):
    good, bad = make_audio("good.wav"), tmp_path / "bad.wav"
    bad.write_bytes(b"not audio")
    result = run_cli("repair", bad, good, tmp_path / "none.wav", "-o", tmp_path / "out", repairer=repairer)
    assert result.code == code
    assert (tmp_path / "out" / "good.wav").exists() == (code == 2)
    assert not (tmp_path / "out" / "bad.wav").exists()
    assert f"Error: {bad} is not a readable audio file" in result.err
    assert f"Error: {tmp_path}/none.wav: there is no such file" in result.err
    assert f"{1 if code == 2 else 0} of 3 repaired, {2 if code == 2 else 3} failed:\n  {bad}\n" in result.out
    lines = result.err.splitlines()
    assert lines[0] == "Note: general needs the mix: give --mix; without it hardly anything is repaired"
    assert len(lines) == 1 + (2 if code == 2 else 3), "one line each"


def test_an_internal_error_gives_one_line_and_exits_with_1(run_cli, make_audio, tmp_path):
    class Buggy(FakeRepairer):
        def process_chunks(self, *args, **kwargs):
            raise ZeroDivisionError("oh")

    result = run_cli("repair", make_audio(), "-o", tmp_path / "out.wav", repairer=Buggy())
    assert result.code == 1
    assert "internal error: ZeroDivisionError: oh; please report it" in result.err
    assert "Traceback" not in result.err
    assert not (tmp_path / "out.wav").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--wet", "1.5"], "--wet 1.5 is out of range; use a number from 0 to 1"),
        (["--wet", "nan"], "--wet nan is out of range"),
        (["--wet", "-0.1"], "--wet -0.1 is out of range"),
        (["--role", "kazoo"], "role 'kazoo' is unknown; choose vocals, drums"),
        (["--steps", "0"], "--steps 0 is out of range; use a number from 1 to 50"),
        (["--jobs", "0"], "--jobs 0 is out of range"),
        (["--quality", "best", "--steps", "3"], "--quality and --steps exclude each other"),
        (["--preset", "bleed", "--blend", "bleed=1"], "--preset and --blend exclude each other"),
        (["--preset", "bled"], "there is no preset 'bled'; did you mean 'bleed'? Presets: auto, bleed, dull-highs"),
        (["--blend", "bleed=2"], "the weight 2 of bleed is out of range; use 0 to 1.5"),
        (["--blend", "bleed"], "'bleed' is not NAME=WEIGHT"),
        (["--blend", "blead=1"], "there is no preset 'blead'"),
        (["--mix", "no.wav"], "the mix no.wav: there is no such file"),
        (
            ["--mix", ROOT / "README.md"],
            "README.md is not a readable audio file (Format not recognised); use WAV or FLAC",
        ),
    ],
)
def test_invalid_options_give_one_line_errors_and_exit_with_2(run_cli, make_audio, tmp_path, options, message):
    result = run_cli("repair", make_audio(), "-o", tmp_path / "out.wav", *options, repairer=FakeRepairer())
    assert result.code == 2
    assert result.err.startswith("Error: ")
    assert message in result.err
    assert len(result.err.splitlines()) == 1
    assert not (tmp_path / "out.wav").exists()


def test_options_reach_the_repairer(run_cli, make_audio, tmp_path, monkeypatch):
    seen = {}

    def make(preset, **options):
        seen.update(options, preset=preset.name)
        return FakeRepairer()

    monkeypatch.setattr(cli.options, "make_repairer", make)
    source = make_audio()
    run_cli("repair", source, "-o", tmp_path / "1.wav")
    assert seen == {
        "preset": "general",
        "wet": None,
        "steps": None,
        "quality": "standard",
        "device": "auto",
        "jobs": None,
        "linked": True,
    }
    run_cli(
        "repair",
        source,
        "-o",
        tmp_path / "2.wav",
        "--preset",
        "bleed",
        "--wet",
        "0.5",
        "--steps",
        "3",
        "--device",
        "cpu",
        "--jobs",
        "2",
        "--no-linked",
    )
    assert seen == {
        "preset": "bleed", "wet": 0.5, "steps": 3, "quality": "standard", "device": "cpu", "jobs": 2, "linked": False,
    }  # fmt: skip
    run_cli("repair", source, "-o", tmp_path / "3.wav", "--blend", "bleed=0.6,musical-noise=0.4", "--quality", "best")
    assert (seen["preset"], seen["quality"]) == ("bleed=0.6,musical-noise=0.4", "best")


def test_the_note_of_an_untrained_preset_is_shown(run_cli, make_audio, tmp_path):
    result = run_cli("repair", make_audio(), "-o", tmp_path / "o.wav", "--preset", "own", repairer=FakeRepairer())
    assert result.code == 2
    folder = Path(os.environ["STEMPROVER_PRESETS"]) / "own"
    folder.mkdir()
    (folder / "preset.toml").write_text(
        'name = "own"\ntitle = "Own"\ndescription = "Mine."\nfor = "x"\n'
        'trained = false\nnote = "near-identity until trained"\n'
    )
    result = run_cli("repair", make_audio(), "-o", tmp_path / "o.wav", "--preset", "own", repairer=FakeRepairer())
    assert result.code == 0
    assert result.err == "Note: preset own: near-identity until trained\n"


def test_existing_outputs_are_only_replaced_with_overwrite(run_cli, make_audio, tmp_path):
    source = make_audio()
    for options, code in (([], 0), ([], 2), (["--overwrite"], 0)):
        result = run_cli("repair", source, "-o", tmp_path / "out.wav", *options, repairer=FakeRepairer())
        assert result.code == code
        hint = f"Error: {tmp_path}/out.wav already exists; choose another output or add --overwrite\n"
        assert result.err.endswith(hint) == (code == 2), "the line names only the file it is about"
    result = run_cli("repair", source, "-o", source, "--overwrite", repairer=FakeRepairer())
    assert result.code == 2
    assert result.err.endswith(f"Error: {source} is an input and is never overwritten; choose another output\n")


def test_the_folder_of_an_output_is_made(run_cli, make_audio, tmp_path):
    source = make_audio()
    assert run_cli("repair", source, "-o", tmp_path / "new" / "er" / "out.wav", repairer=FakeRepairer()).code == 0
    assert (tmp_path / "new" / "er" / "out.wav").exists()
    assert run_cli("repair", source, "-o", f"{tmp_path}/Song feat. X/", repairer=FakeRepairer()).code == 0
    assert (tmp_path / "Song feat. X" / "stem.wav").exists()
    result = run_cli("repair", source, "-o", tmp_path / "v4.1", repairer=FakeRepairer())
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert "for a folder of this name put a slash at the end" in result.err


def test_no_output_replaces_any_input_of_the_same_run(run_cli, make_audio, tmp_path):
    first, second = make_audio("a/x.wav"), make_audio("b/y.wav", seed=1)
    os.link(second, tmp_path / "b" / "x.wav")
    before = second.read_bytes()
    result = run_cli("repair", first, second, "-o", tmp_path / "b", "--overwrite", repairer=FakeRepairer(gain=0.5))
    assert result.code == 2
    assert second.read_bytes() == before
    assert first.exists()


def test_presets_can_be_listed_shown_and_checked(run_cli):
    listed = run_cli("presets", "list")
    assert listed.code == 0
    for name in ("general", "bleed", "musical-noise", "phasiness", "dull-highs", "smeared-transients"):
        assert name in listed.out
        assert run_cli("presets", "show", name).code == 0
    assert re.search(r"auto +│ whatever the detectors find", listed.out)
    assert "The detectors choose the presets for each stem" in run_cli("presets", "show", "auto").out
    assert os.environ["STEMPROVER_PRESETS"] in listed.out
    checked = run_cli("presets", "check")
    assert checked.code == 0
    assert checked.out.count(": OK\n") == 6
    example = ROOT / "examples" / "presets" / "vocal-cleanup"
    shown = run_cli("presets", "show", example)
    assert "before: HighpassFilter (cutoff_frequency_hz = 70)" in shown.out


def test_a_preset_for_a_separators_stems_asks_for_the_mix(run_cli, make_audio, tmp_path):
    folder = Path(os.environ["STEMPROVER_PRESETS"]) / "own"
    folder.mkdir()
    text = 'name = "own"\ntitle = "Own"\ndescription = "Mine."\nfor = "stems"\nseparated = true\n'
    (folder / "preset.toml").write_text(text)
    shown = run_cli("presets", "show", "own").out
    assert "separated: yes, with a Wiener filter (--mix)" in shown
    stem = make_audio("stem.wav")
    note = "Note: preset own: repairs stems from a separator and needs their mix (--mix FILE)"
    found = run_cli("repair", stem, "-o", tmp_path / "a.wav", "--preset", "own", repairer=FakeRepairer())
    assert (found.code, note in found.err) == (0, True)
    options = ("--preset", "own", "--mix", stem)
    found = run_cli("repair", stem, "-o", tmp_path / "b.wav", *options, repairer=FakeRepairer())
    assert (found.code, note in found.err) == (0, False)


def test_a_broken_preset_is_reported_and_the_others_are_still_listed(run_cli):
    folder = Path(os.environ["STEMPROVER_PRESETS"]) / "own"
    folder.mkdir()
    (folder / "preset.toml").write_text('name = "own"\nwett = 1\n')
    for command in ("list", "check"):
        result = run_cli("presets", command)
        assert result.code == 2
        assert f"Error: {folder}/preset.toml: unknown key 'wett'; did you mean 'wet'?" in result.err
        assert "bleed" in result.out
    assert run_cli("presets", "show", "own").code == 2


def test_a_missing_extra_gives_the_command_to_install_it(run_cli, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [
        name
        for name in sys.modules
        if name.startswith(("stemprover.export", "stemprover.engine.train", "stemprover.engine.model"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    result = run_cli("export", tmp_path / "a.ckpt", "-o", tmp_path / "bundle")
    assert result.code == 1
    assert "this command needs torch, which is not installed; run: pip install '.[export]'" in result.err
    result = run_cli("train")
    assert result.code == 1
    assert "pip install '.[train]'" in result.err


def test_shell_completion_works():
    environment = {
        **os.environ,
        "_STEMPROVER_COMPLETE": "complete_bash",
        "COMP_WORDS": "stemprover pre",
        "COMP_CWORD": "1",
    }
    out = subprocess.run([sys.executable, "-m", "stemprover"], env=environment, capture_output=True, text=True).stdout
    assert "presets" in out.split()
    environment |= {"COMP_WORDS": "stemprover presets show b", "COMP_CWORD": "3"}
    out = subprocess.run([sys.executable, "-m", "stemprover"], env=environment, capture_output=True, text=True).stdout
    assert out.split() == ["bleed"]


def test_the_command_line_starts_quickly_and_loads_no_heavy_packages():
    script = (
        "import sys\nfrom stemprover import cli\nsys.argv = ['stemprover', '--version']\n"
        "try: cli.main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'onnxruntime', 'soundfile', 'pedalboard', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'{heavy} loaded' if heavy else 0)"
    )
    best_s = 9.0
    for _ in range(3):
        started_s = time.perf_counter()
        subprocess.run([sys.executable, "-c", script], check=True)
        best_s = min(best_s, time.perf_counter() - started_s)
    assert best_s < 1.0, "it takes 0.15 s on a free core, but this machine may be busy"


@pytest.fixture
def half_a_song(make_audio):
    """A stem that is in the song, one that is not, and the song."""
    stem, other, rest = (make_audio(f"stems/{name}.wav", seconds=2.0, seed=seed) for seed, name in enumerate("abc"))
    song = make_audio("song.wav", levels=sum(soundfile.read(path)[0].T for path in (stem, rest)), subtype="FLOAT")
    rest.unlink()
    return stem, other, song


@pytest.mark.parametrize(
    ("repairer", "what"),
    [
        (FakeRepairer(0.9), "1 repaired without the mix: it does not fit"),
        (FakeRepairer(), "1 left as it was: the mix does not fit"),
    ],
)
def test_a_mix_that_was_left_out_is_counted_and_exits_with_3(run_cli, half_a_song, tmp_path, repairer, what):
    stem, other, song = half_a_song
    result = run_cli("repair", stem.parent, "-o", tmp_path / "out", "--mix", song, repairer=repairer)
    assert result.code == 3
    assert result.out.endswith(f"1 of 2 repaired, {what}\n")
    assert run_cli("repair", other, "-o", tmp_path / "out.wav", "--mix", song, repairer=repairer).code == 3
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"not audio")
    result = run_cli("repair", other, bad, "-o", tmp_path / "more", "--mix", song, repairer=repairer)
    assert result.code == 2
    assert result.out.endswith(f"0 of 2 repaired, 1 failed:\n  {bad}\n{what}\n")


def test_with_require_mix_a_stem_that_the_mix_does_not_fit_fails(run_cli, half_a_song, tmp_path):
    stem, other, song = half_a_song
    arguments = ("repair", stem, other, "-o", tmp_path / "out", "--require-mix")
    result = run_cli(*arguments, "--mix", song, repairer=FakeRepairer(0.9))
    assert result.code == 1
    assert f"Error: {other}: " in result.err
    assert "nothing was written" in result.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == [stem.name]
    assert run_cli(*arguments).code == 2, "there is no mix at all"


def test_the_rest_of_the_song_takes_the_place_of_the_mix(run_cli, make_audio, tmp_path):
    vocals, rest = make_audio("vocals.wav", seed=1, subtype="FLOAT"), make_audio("no_vocals.wav", seed=2)
    fake = FakeRepairer(gain=0.0, mix_gain=1.0)
    result = run_cli("repair", vocals, "--rest", rest, "-o", tmp_path / "out.wav", repairer=fake)
    assert result.code == 0, result.err
    total = soundfile.read(vocals)[0] + soundfile.read(rest)[0]
    np.testing.assert_allclose(soundfile.read(tmp_path / "out.wav")[0], total, atol=1e-6)
    for more in (["-o", rest], ["-o", tmp_path / "b.wav", "--mix", rest]):
        assert run_cli("repair", vocals, "--rest", rest, *more, "--overwrite").code == 2
    report = render_file(vocals, tmp_path / "same.wav", fake, rest=rest)
    assert report.correction_db is not None
    with pytest.raises(OptionError, match="exclude each other"):
        render_file(vocals, tmp_path / "b.wav", fake, rest=rest, mix=rest)


def test_vocals_and_instrumental_without_a_mix_are_each_others_rest(run_cli, make_audio, tmp_path):
    vocals, rest = (make_audio(name, seed=n, subtype="FLOAT") for n, name in enumerate(("vocals.wav", "no_vocals.wav")))
    fake = FakeRepairer(gain=0.5, mix_gain=0.25)
    result = run_cli("repair", vocals, rest, "-o", tmp_path / "out", repairer=fake)
    assert result.code == 0, result.err
    assert "Note: no mix given, so the sum of no_vocals.wav and vocals.wav is used as the mix\n" in result.err
    assert "without --mix" not in result.err
    assert fake.had_mix
