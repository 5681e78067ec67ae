"""Labels by the real search engine, on a glass of the sample."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mgsym.data_tools.sample import sample_structures
from mgsym.data_tools.simulation.labelling.barriers import SearchRun, label
from mgsym.data_tools.simulation.labelling.event_files import read_events
from mgsym.data_tools.simulation.labelling.schedule import Plan
from mgsym.data_tools.simulation.potentials.files import read_potential
from mgsym.data_tools.simulation.potentials.zhou_johnson_wadley import zhou_cu_zr
from mgsym.data_tools.simulation.saddle_search.settings import ArtnSettings
from mgsym.errors import InputError, Interrupted
from mgsym.structure import Structure


@pytest.fixture
def glass() -> Structure:
    """The sample's test glass, at a minimum of the Mendelev potential."""
    return next(s for s in sample_structures() if s.split == "test")


def test_a_structure_at_no_minimum_is_refused(glass: Structure, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not at a minimum: the force .* mgsym relax"):
        label(glass, zhou_cu_zr(), tmp_path / "a.events.csv", ArtnSettings())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_interrupted_and_in_two_processes_it_finds_the_same_saddles(
    glass: Structure, mendelev: Path, tmp_path: Path
) -> None:
    # in float32, rounding grows so far that now and then a search ends at another saddle
    settings = ArtnSettings(precision="float64")
    potential, plan, rows = read_potential(mendelev), Plan(2), [3, 5, 6]
    whole = tmp_path / "whole.csv"
    labels = label(glass, potential, whole, settings, rows=rows, plan=plan)
    assert labels.searches == 6
    assert 0 < labels.statuses["found"] <= 6
    _, events, _ = read_events(whole)
    found = events[events["status"] == "found"]
    assert (found["barrier"] > 0.1).all()
    assert (found["barrier"] < 6).all()
    assert (found["eigenvalue"] < 0).all()
    assert (found["max_force"] < 0.05).all()
    # a frozen boundary makes saddles higher
    assert (found["barrier_local"] >= found["barrier"] - 1e-6).all()
    asked = iter([False, False, True])
    other = tmp_path / "other.csv"
    same = {"rows": rows, "plan": plan}
    stop = SearchRun(should_stop=lambda: next(asked), slots=2)
    with pytest.raises(Interrupted, match="3 of 6 searches"):
        label(glass, potential, other, settings, **same, run=stop)
    rest = label(glass, potential, other, settings, **same, run=SearchRun(jobs=2, resume=True))
    assert rest.made == 3
    for name in ("barrier", "barrier_stderr", "events"):
        first, second = (x.structure.columns[name].values[rows] for x in (labels, rest))
        torch.testing.assert_close(first, second, rtol=0, atol=1e-6, equal_nan=True)
