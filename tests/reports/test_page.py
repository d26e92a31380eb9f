"""The page with audio, in a real browser if there is one."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from stemprover.reports.compare import Row, comparison_body
from stemprover.reports.page import Lane, make_page, player_section

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-quic", "--no-first-run", "--autoplay-policy=no-user-gesture-required", "--mute-audio",
    "--enable-logging=stderr",
)  # fmt: skip
PROBE = """
<script>
const wait = condition => new Promise(resolve => {
  document.body.dataset.waiting = condition;
  const ask = () => condition() ? resolve() : setTimeout(ask, 20);
  ask();
});
(async () => {
  const found = { errors: [] };
  addEventListener("error", event => found.errors.push(String(event.message)));
  addEventListener("unhandledrejection", event => found.errors.push(String(event.reason)));
  const { audios, picks, cursors, play, position } = players[0];
  await wait(() => audios.every(audio => audio.duration > 0) && Number(position.max) > 2);
  found.durations = audios.map(audio => audio.duration);
  position.value = 1.5;
  position.dispatchEvent(new Event("input"));
  found.sought = audios[0].currentTime;
  picks[1].click();
  await wait(() => !audios[1].seeking);
  found.switched = audios[1].currentTime;
  found.pressed = picks.map(pick => pick.getAttribute("aria-pressed"));
  found.cursor = cursors[1].style.left;
  play.click();
  await wait(() => !audios[1].paused);
  dispatchEvent(new KeyboardEvent("keydown", { key: "1", bubbles: true }));
  document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "1", bubbles: true }));
  await wait(() => !audios[0].paused && !audios[0].seeking);
  found.playing = audios.map(audio => !audio.paused);
  found.kept = audios[0].currentTime;
  play.click();
  const starts = audio => new Promise(resolve => audio.addEventListener("play", resolve, { once: true }));
  const second = starts(players[1].audios[0]);
  players[1].play.click();
  await second;
  const first = starts(audios[0]);
  play.click();
  await first;
  found.others = players[1].audios.map(audio => audio.paused);
  play.click();
  found.width = [innerWidth, document.documentElement.scrollWidth];
  document.body.dataset.found = JSON.stringify(found);
})();
</script>
</body>
"""


@pytest.fixture(scope="module")
def page() -> str:
    rng = np.random.default_rng(0)
    t = np.arange(3 * 44100) / 44100
    before = 0.1 * rng.standard_normal((2, len(t))) * (np.sin(2 * np.pi * t) > 0)
    after = np.stack([np.sin(2 * np.pi * 440 * t), np.sin(2 * np.pi * 660 * t)]) * 1.7
    rows = (Row("SI-SDR", "dB", "higher", 1.0, 2.5), Row("A <b>", "", "lower", 1.0, 2.0))
    lanes = [Lane("bleed: clearly <here>", rng.random((31, 200)), rng.random(31))]
    body = comparison_body({"Before": before, "After": after}, 44100, rows)
    return make_page("a & b <song>.wav", [*body, player_section({"Stem": before}, 44100, lanes=lanes, tempo_bpm=120)])


def test_the_page_is_one_file_without_links(page: str) -> None:
    assert "http" not in page.replace("http-equiv", "")
    assert "a &amp; b &lt;song&gt;.wav" in page
    assert "A &lt;b&gt;" in page
    assert page.count("data:audio/flac;base64,") == 3
    assert page.count("data:image/png;base64,") == 4
    assert "bleed: clearly &lt;here&gt;" in page
    assert "bar 2</span>" in page
    assert '<td class="better">+1.500 better</td>' in page
    assert '<td class="worse">+1.000 worse</td>' in page
    assert "$" not in re.sub(r"base64,[^\"]*", "", page).replace("[1-9]$/", "")


@pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed (apt install chromium)")
@pytest.mark.parametrize("size", ["1200,900", "400,800"])
def test_the_switch_keeps_the_position_in_a_browser(page: str, tmp_path: Path, size: str) -> None:
    file = tmp_path / "page.html"
    file.write_text(page.replace("</body>", PROBE), encoding="utf-8")
    # Virtual time runs ahead while audio is decoded: at times even an hour of it is too short.
    for attempt in range(4):
        profile = f"--user-data-dir={tmp_path / f'profile{attempt}'}"
        command = [str(BROWSER), *FLAGS, profile, f"--window-size={size}"]
        shown = subprocess.run(
            [*command, "--virtual-time-budget=36000000", "--dump-dom", file.as_uri()],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        if (result := re.search(r'data-found="([^"]*)"', shown.stdout)) is not None:
            break
    waiting = re.search(r'data-waiting="([^"]*)"', shown.stdout)
    assert result is not None, f"still waiting for {waiting and waiting[1]}; {shown.stderr[-2000:]}"
    found = json.loads(html.unescape(result[1]))
    assert found["errors"] == []
    assert "CONSOLE" not in shown.stderr
    assert found["durations"] == pytest.approx([3.0, 3.0], abs=0.01)
    assert found["sought"] == pytest.approx(1.5, abs=0.01)
    assert found["switched"] == pytest.approx(1.5, abs=0.05)
    assert found["pressed"] == ["false", "true"]
    assert found["cursor"] == "50%"
    assert found["playing"] == [True, False]
    assert found["kept"] >= 1.45
    assert found["others"] == [True], "only one section plays at a time"
    assert found["width"][1] <= found["width"][0], "the page does not scroll sideways"
    screenshot = tmp_path / "page.png"
    subprocess.run(
        [*command, f"--screenshot={screenshot}", file.as_uri()], capture_output=True, timeout=120, check=True
    )
    assert matplotlib.image.imread(screenshot)[..., :3].std() > 0.05


def test_the_commands_write_pages(run_cli: Callable, make_audio: Callable, tmp_path: Path) -> None:
    before, after, target = make_audio("a.wav"), make_audio("b.wav", seed=1), tmp_path / "out.html"
    result = run_cli("compare", before, after, "--html", target)
    assert result.code == 0, result.err
    assert "<title>a.wav - StemProver</title>" in target.read_text()
    analysis = tmp_path / "analysis.html"
    assert run_cli("analyze", before, "--html", analysis).code == 0
    assert analysis.read_text().count('class="lane"') == 5
    assert run_cli("compare", before, after, "--html", target).code == 2, "the file already exists"
