"""Graphs with whatever a model needs of a structure, computed where it can be."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import torch

from mgsym.data_tools.simulation.potentials.eam import EAM
from mgsym.data_tools.simulation.potentials.files import load_potential
from mgsym.data_tools.workflows.graphs import with_physical_inputs
from mgsym.descriptors.physical import physical_inputs_of, unusual_inputs
from mgsym.errors import InputError
from mgsym.graph import Graph, build_graph, match_species
from mgsym.prediction.ensemble import Ensemble
from mgsym.structure import Structure
from mgsym.utils.devices import resolve_device
from mgsym.utils.progress import Progress

Potential: TypeAlias = EAM | str | Path | None


def graph_for(
    system: Structure | Graph,
    ensemble: Ensemble,
    potential: Potential = None,
    device: str | torch.device = "auto",
    progress: Progress | None = None,
) -> Graph:
    """The graph that an ensemble predicts from; a Graph is given back as it is.

    Args:
        system: a structure or its graph.
        ensemble: its cutoff is taken, and the physical inputs that its models ask for.
        potential: what computes them, or its file; it should be that of the training structures.
        device: where to search for neighbours and compute them.
        progress: called with the parts of that work done and in all.

    Raises:
        InputError: physical inputs are needed and there is no potential; or the structure is not
            at a minimum of it, or has an element that it lacks.
    """
    if isinstance(system, Graph):
        return system
    graph = build_graph(system, ensemble.cutoff, device=resolve_device(device))
    needed = physical_names(ensemble)
    if not needed:
        return graph
    if potential is None:
        raise InputError(
            f"the model takes {', '.join(needed)} of each atom, which follow from the potential "
            "that it was trained with: give that with --potential FILE (or MGSYM_POTENTIAL)",
            path=system.name or None,
        )
    eam = potential if isinstance(potential, EAM) else _loaded(Path(potential))
    return with_physical_inputs(graph, system, eam, resolve_device(device), progress)


@lru_cache(maxsize=1)
def _loaded(path: Path) -> EAM:
    """Read once for all structures."""
    return load_potential(path)


def physical_names(ensemble: Ensemble) -> tuple[str, ...]:
    """Names of the physical inputs that some model of an ensemble takes."""
    names = [name for model in ensemble.models for name in physical_inputs_of(model)]
    return tuple(dict.fromkeys(names))


def physics_warning(graph: Graph, ensemble: Ensemble) -> tuple[str, ...]:
    """A sentence where physical inputs are far from those of the training structures."""
    far = [
        name
        for model in ensemble.models
        for name in unusual_inputs(model, match_species(graph, model.species))
    ]
    if not far:
        return ()
    names = ", ".join(dict.fromkeys(far))
    return (
        f"{graph.names[0] or 'the structure'} has atoms whose {names} is far from that of the "
        "training structures: was the model trained with another potential?",
    )
