"""What is installed: the packages of the tree under the one name mgsym, with the sample inside."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# where each folder of the tree is installed
HOMES = {"mgsym": "mgsym", "cli": "mgsym/cli", "data_tools": "mgsym/data_tools"}


def installed_names(suffixes: Sequence[str] = (".py",)) -> set[str]:
    """The tree's files as they are called once installed."""
    return {
        f"{home}/{file.relative_to(ROOT / folder).as_posix()}"
        for folder, home in HOMES.items()
        for file in (ROOT / folder).rglob("*")
        if file.suffix in suffixes and "__pycache__" not in file.parts
    }


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """What a program prints; fails with what it complained of."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive, built from a copy of the tree."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("built")
    copy = folder / "tree"
    listed = run("git", "ls-files", "-co", "--exclude-standard", "-z", cwd=ROOT).split("\0")
    for name in filter(None, listed):
        if name.partition("/")[0] in {*HOMES, "pyproject.toml", "README.md", "LICENSE"}:
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    # the wheel is made from the source archive, so it shows that nothing is missing there
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, copy, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel_names(built: Path) -> set[str]:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


@pytest.fixture(scope="module")
def site(built: Path) -> Path:
    """The wheel, installed where nothing else of mgsym is."""
    target = built / "site"
    wheel = next(built.glob("*.whl"))
    offline = ("--no-deps", "--no-index", "--quiet", "--target", target)
    run(sys.executable, "-m", "pip", "install", *offline, wheel, cwd=built)
    return target


def test_the_package_list_is_the_trees() -> None:
    folders = {Path(name).parent.as_posix() for name in installed_names()}
    listed = PROJECT["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(folder.replace("/", ".") for folder in folders)


def test_every_package_has_an_init() -> None:
    names = installed_names()
    for folder in {Path(name).parent.as_posix() for name in names}:
        assert f"{folder}/__init__.py" in names


def test_the_wheel_holds_the_trees_modules(wheel_names: set[str]) -> None:
    assert {name for name in wheel_names if name.endswith(".py")} == installed_names()


def test_the_wheel_holds_the_sample_the_model_and_the_type_marker(wheel_names: set[str]) -> None:
    data = installed_names((".xyz", ".md", ".pt", ".typed"))
    assert sum(name.endswith(".xyz") for name in data) == 5
    assert {f"mgsym/data_tools/shipped_model/cu64zr36{end}" for end in (".pt", ".md")} <= data
    assert "mgsym/py.typed" in data
    assert data <= wheel_names


def test_nothing_is_installed_beside_mgsym(wheel_names: set[str]) -> None:
    tops = {name.partition("/")[0] for name in wheel_names}
    version = PROJECT["project"]["version"]
    assert tops == {"mgsym", f"mgsym-{version}.dist-info"}


def test_the_source_archive_holds_the_tree(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for folder in HOMES:
        expected = {
            file.relative_to(ROOT).as_posix()
            for file in (ROOT / folder).rglob("*.py")
            if "__pycache__" not in file.parts
        }
        assert expected <= names
    assert "pyproject.toml" in names


def test_the_installed_command_runs(site: Path, tmp_path: Path) -> None:
    # without site-packages' .pth files the editable install cannot stand in for the wheel
    program = (
        "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f)];"
        "import mgsym.cli.main as m; assert m.__file__.startswith(sys.argv[1]), m.__file__;"
        "raise SystemExit(any(m.main(line.split()) for line in sys.argv[2:]))"
    )

    def mgsym(*lines: str) -> str:
        start = (sys.executable, "-c", program, site)
        return run(*start, *lines, cwd=tmp_path, PYTHONPATH=str(site))

    assert mgsym("--version") == f"mgsym {PROJECT['project']['version']}\n"
    sample = "mgsym/data_tools/sample/cu64zr36_500_test.xyz"
    (tmp_path / "test.xyz").symlink_to(site / sample)
    mgsym("build-graph", "predict test.xyz --device cpu -o barriers.csv")
    assert "barrier_predicted_std" in (tmp_path / "barriers.csv").read_text()
    assert len(list((tmp_path / "graphs").glob("*.npz"))) == 5
    assert (site / "bin" / "mgsym").exists()


@pytest.mark.parametrize("statement", ["import mgsym", "import mgsym.cli.main, mgsym.errors"])
def test_importing_is_light(statement: str, tmp_path: Path) -> None:
    program = f"import sys; {statement}; print(*sys.modules)"
    loaded = set(run(sys.executable, "-c", program, cwd=tmp_path).split())
    assert "mgsym" in loaded
    assert not loaded & {"torch", "numpy", "rich", "ase", "matplotlib"}


def test_help_loads_no_torch(tmp_path: Path) -> None:
    program = (
        "import sys; from mgsym.cli.main import main; main(['--help']);"
        "print('heavy:', *{'torch', 'numpy', 'rich'} & set(sys.modules))"
    )
    assert run(sys.executable, "-c", program, cwd=tmp_path).splitlines()[-1] == "heavy:"


def test_public_names_are_found(tmp_path: Path) -> None:
    program = "import mgsym; [getattr(mgsym, name) for name in mgsym.__all__]"
    run(sys.executable, "-c", program, cwd=tmp_path)


def test_an_unknown_name_is_an_attribute_error() -> None:
    import mgsym

    with pytest.raises(AttributeError, match="has no attribute 'absent'"):
        _ = mgsym.absent
