"""Every command that has a --device, on the GPU; what it writes is what the CPU writes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

import mgsym
from mgsym.cli.main import main
from mgsym.data_tools.formats import write
from mgsym.graph import Graph
from mgsym.structure import Structure
from mgsym.training import train
from mgsym.training.config import preset

pytestmark = pytest.mark.cuda

QUICK = ["build-graph", "train", "predict", "evaluate", "relax"]
# a command line of each; {out} is a new name in a folder with run/, pair/, graphs/ and test.xyz
LINES: dict[str, list[str]] = {
    "build-graph": ["test.xyz --cutoff 3.6 -o {out}"],
    "train": [
        "graphs -o {out} --epochs 1",
        "graphs -o {out} --epochs 1 --preset paper --precision bfloat16",
        "graphs -o {out} --epochs 2 --precision float16 --set training.ema_decay=0.9",
        "graphs -o {out} --epochs 1 --seeds 0:1 --set training.batch_size=1",
        "graphs -o {out} --epochs 1 --from run",
        "graphs -o {out} --epochs 1 --preset paper --set training.teacher=ridge",
    ],
    "predict": ["test.xyz --run run -o {out}.xyz", "test.xyz --run pair -o {out}.xyz"],
    "evaluate": ["run graphs", "shipped test.xyz"],
    "check": ["run test.xyz --count 2"],
    "ensemble": ["run pair -o {out}.pt", "run --calibrate test.xyz -o {out}.pt"],
    "explain": ["test.xyz --node 5 --topk 5 --run run -o {out}"],
    "explain-stats": [
        "test.xyz --nodes 4,8 --topk 5 --method gradient --faithfulness --run run -o {out} "
        "--no-figures"
    ],
    "report": ["run -o {out}.html"],
    "benchmark": ["graphs --models fast,ridge --protocol split -o {out} --set training.epochs=1"],
    "relax": ["test.xyz -o {out} --max-steps 3", "test.xyz -o {out} --method cg --max-steps 3"],
    "quench": [
        "--atoms 50 --rate 9.9e15 --melt 0.02 --timestep 2 --composition Cu1Zr1 -o {out}.xyz"
    ],
    "label": [
        "--atoms 0:2 --searches 1 --set artn.call_limit=8 --set artn.connect=true -o {out}.xyz"
    ],
    "deform": [
        "test.xyz --strain 0.002 --step 0.001 -o {out}",
        "test.xyz --strain 0.002 --step 0.001 --method fire -o {out}",
    ],
    "explain-physics": [
        "test.xyz --nodes 5 --run run --method gradient --searches 1 -o {out} --repeats 1"
    ],
}
# a few atoms that are not at rest, or too few for a search: refused, but not for the device
ENDS = {"relax": (0, 1), "explain-physics": (0, 1, 3)}


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, glasses: list[Structure], graphs: list[Graph]
) -> Path:
    """A run, a folder of two seeds, graphs and a structure, made on the CPU."""
    place = tmp_path_factory.mktemp("commands")
    for graph in graphs:
        graph.save(place / "graphs" / f"{graph.names[0]}.npz")
    write(glasses[2], place / "test.xyz")
    for seed, run in enumerate(("run", "pair/seed0", "pair/seed1")):
        config = preset("fast").changed({"training.epochs": 1, "model.ridge_share": 0.0})
        train(graphs, config.changed({"seed": seed}), run=place / run, device="cpu")
    return place


def lines() -> list[Any]:
    return [
        pytest.param(
            name, line, marks=[pytest.mark.slow] * (name not in QUICK or place > 0),
            id=f"{name}-{place}",
        )
        for name, several in LINES.items()
        for place, line in enumerate(several)
    ]  # fmt: skip


def commands() -> dict[str, click.Command]:
    """All of them, by name."""
    from mgsym.cli.main import cli

    context = click.Context(cli)
    found = {name: cli.get_command(context, name) for name in cli.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None}


def test_no_command_with_a_device_is_missing() -> None:
    with_device = {n for n, c in commands().items() if any(p.name == "device" for p in c.params)}
    assert with_device == set(LINES)


@pytest.mark.parametrize(("name", "line"), lines())
def test_a_command_runs_there(
    gpu: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    name: str, line: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MGSYM_POTENTIAL", raising=False)
    out = f"out-{name}-{len(list(folder.iterdir()))}"
    code = main([name, *line.format(out=out).split(), "--device", "cuda", "-v"])
    told = capsys.readouterr()
    assert code in ENDS.get(name, (0,)), told.err[-3000:]
    assert not re.search("same device|convert cuda|not implemented", told.err)


def test_predictions_are_those_of_the_cpu(
    gpu: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    found = []
    for device in ("cpu", "cuda"):
        line = f"predict test.xyz --run pair -o p-{device}.xyz --device {device} -q"
        assert main(line.split()) == 0
        columns = mgsym.read(f"p-{device}.xyz").columns
        found.append([columns[n].values for n in ("barrier_predicted", "barrier_predicted_std")])
    for here, there in zip(*found, strict=True):
        np.testing.assert_allclose(there, here, rtol=1e-4, atol=1e-4)
