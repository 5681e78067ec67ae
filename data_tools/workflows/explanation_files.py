"""Explanations in files that OVITO reads: importance per atom, and per edge."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mgsym.data_tools.formats import output_format, write
from mgsym.data_tools.workflows.graphs import structure_of
from mgsym.errors import UsageError
from mgsym.explanation import Explanation
from mgsym.graph import Graph
from mgsym.structure import Column, Structure
from mgsym.structure.columns import BARRIER
from mgsym.utils.files import atomic_path, refuse_existing

EDGES = ".local"  # LAMMPS dump local


def check_export(path: str | Path, overwrite: bool = False) -> Path:
    """Refuse an export that could not be written, before any long work.

    Raises:
        UsageError: the suffix names no format that can be written, or the file exists.
    """
    path = Path(path)
    if path.suffix != EDGES and output_format(path).write is None:
        raise UsageError(f"{path}: export to .extxyz (atoms) or {EDGES} (edges)")
    return refuse_existing(path, overwrite)


def export_explanation(
    graph: Graph, explanation: Explanation, path: str | Path, overwrite: bool = False
) -> None:
    """Write the edges as a LAMMPS ``dump local`` (.local), or all atoms as a structure file.

    Args:
        graph: the graph that was explained.
        explanation: its edges are those written.
        path: ``.local``, or any format of structures, such as ``.extxyz``.
        overwrite: replace an existing file.
    """
    path = check_export(path, overwrite)
    if path.suffix == EDGES:
        with atomic_path(path, overwrite) as temporary:
            temporary.write_text(dump_local(explanation), encoding="utf-8")
    else:
        write(with_importance(graph, explanation), path, overwrite)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write a table as CSV, replacing the file."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=columns)
        writer.writeheader()
        writer.writerows(rows)


def with_importance(graph: Graph, explanation: Explanation) -> Structure:
    """The explained structure with two columns.

    ``importance``: half the sum over the selected edges that start or end at the atom, so that
    the sum over atoms is that over edges. ``explained``: 1 for the explained atom, else 0.
    """
    structure = int(graph.structure_index[explanation.node])
    rows = (graph.structure_index == structure).nonzero().squeeze(1)
    importance = torch.zeros(graph.num_nodes)
    for ends in explanation.endpoints:
        importance.index_add_(0, ends, explanation.importance / 2)
    explained = torch.zeros(graph.num_nodes, dtype=torch.int64)
    explained[explanation.node] = 1
    columns = {
        "importance": Column(importance[rows]),
        "explained": Column(explained[rows]),
        BARRIER: Column(graph.target[rows], "eV"),
    }
    return structure_of(graph, structure).replace(columns=columns)


def dump_local(explanation: Explanation) -> str:
    """The edges as LAMMPS ``dump local`` writes bonds: ids of both ends, length, importance."""
    lines = ["ITEM: TIMESTEP", "0", "ITEM: NUMBER OF ENTRIES", str(len(explanation))]
    lines.append("ITEM: ENTRIES index batom1 batom2 dist importance hop")
    lines += [
        f"{row['rank']} {row['source_id']} {row['target_id']} {row['distance_angstrom']:.6g} "
        f"{row['importance']:.6g} {row['hop']}"
        for row in explanation.table()
    ]
    return "\n".join(lines) + "\n"
