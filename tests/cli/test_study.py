"""`mgsym study`: the workflow it writes, as Snakemake reads it and as it runs."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from mgsym.cli.main import cli, main

Captured = pytest.CaptureFixture[str]
needs_snakemake = pytest.mark.skipif(
    importlib.util.find_spec("snakemake") is None,
    reason='Snakemake is not installed: pip install "mgsym[study]"',
)
TINY = {
    "rates = [1e13]": "rates = [1e15]",
    "seeds = [0, 1, 2, 3]": "seeds = [0, 1]",
    "test_seeds = [3]": "test_seeds = [1]",
    "atoms = 500": "atoms = 150",
    "melt = 50 ": "melt = 0.5 ",
    "searches = 20 ": "searches = 2 ",
    '"all" ': '"random:45" ',
    "shards = 4": "shards = 2",
    "jobs = 2 ": "jobs = 1 ",
    "epochs = 0 ": "epochs = 2 ",
    '"shear-xy", "shear-xz", "shear-yz"': '"shear-xy"',
    "strain = 0.1": "strain = 0.02",
    "step = 1e-3": "step = 0.01",
    "fmax = 1e-5": "fmax = 1e-2",
}


def made(folder: Path, changes: dict[str, str] | None = None) -> Path:
    """A new study, with its settings changed."""
    assert main(["study", "init", str(folder), "-q"]) == 0
    settings = folder / "study.toml"
    text = settings.read_text(encoding="utf-8")
    for old, new in (changes or {}).items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    settings.write_text(text, encoding="utf-8")
    return folder


def snakemake(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the workflow with this Python's mgsym."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", *options],
        cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_init_writes_the_workflow_and_replaces_nothing(tmp_path: Path, capsys: Captured) -> None:
    assert main(["study", "init", str(tmp_path / "new")]) == 0
    told = capsys.readouterr().err
    assert "Snakefile" in told
    assert f"cd {tmp_path / 'new'} && snakemake --cores 2" in told
    settings = tomllib.loads((tmp_path / "new" / "study.toml").read_text(encoding="utf-8"))
    assert set(settings["test_seeds"]) < set(settings["seeds"])
    (tmp_path / "new" / "study.toml").write_text("mine")
    assert main(["study", "init", str(tmp_path / "new")]) == 2
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "new" / "study.toml").read_text() == "mine"
    assert main(["study", "init", str(tmp_path / "new"), "--overwrite", "-q"]) == 0


def test_every_step_is_a_command_with_options_that_exist(tmp_path: Path) -> None:
    text = (made(tmp_path / "s") / "Snakefile").read_text(encoding="utf-8")
    shells = re.findall(r"    shell:\n((?: {8}\".*\"\n)+)", text)
    names = []
    for shell in shells:
        line = "".join(re.findall(r'^ {8}"(.*)"$', shell, re.M)).split("mgsym ")[-1]
        words = [word for word in shlex.split(line) if not word.startswith("{")]
        command = cli.get_command(click.Context(cli), words[0])
        assert command is not None, words[0]
        known = {name for option in command.params for name in option.opts}
        assert {word for word in words if word.startswith("-")} <= known, line
        names.append(words[0])
    steps = "quench relax label merge build-graph train evaluate report predict deform"
    assert sorted(names) == sorted(steps.split())


@needs_snakemake
def test_snakemake_plans_every_step_of_every_glass(tmp_path: Path) -> None:
    done = snakemake(made(tmp_path / "s"), "-n", "--quiet", "rules")
    assert done.returncode == 0, done.stderr
    done = snakemake(tmp_path / "s", "-n")
    counts = dict(re.findall(r"^([a-z_]+) +(\d+)$", done.stdout, re.M))
    # three compositions, one rate, four seeds; four shards each
    assert (counts["quench"], counts["relax"], counts["label"]) == ("12", "12", "48")
    assert (counts["merge"], counts["train"], counts["deform"]) == ("12", "3", "3")


@needs_snakemake
def test_seeds_to_test_that_are_none_are_refused(tmp_path: Path) -> None:
    done = snakemake(made(tmp_path / "s", {"test_seeds = [3]": "test_seeds = [9]"}), "-n")
    assert done.returncode != 0
    assert "test_seeds [9] must be some of the seeds [0, 1, 2, 3]" in done.stdout + done.stderr


@needs_snakemake
@pytest.mark.slow
def test_three_alloys_from_the_melt_to_the_shear(tmp_path: Path) -> None:
    folder = made(tmp_path / "s", TINY)
    done = snakemake(folder)
    assert done.returncode == 0, done.stderr[-4000:]
    for alloy in ("Cu64Zr36", "Cu50Zr50", "Zr50Cu40Al10"):
        scores = json.loads((folder / "results" / f"{alloy}_scores.json").read_text())
        assert scores
        compared = (folder / "deformed" / alloy / "compared.csv").read_text()
        assert {"barrier", "barrier_predicted", "compliance", "random"} <= {
            line.split(",")[3] for line in compared.splitlines()[1:]
        }
        assert (folder / "results" / f"{alloy}_report.html").exists()
    again = snakemake(folder, "-n")
    assert "Nothing to be done" in again.stdout + again.stderr
