"""What `mgsym benchmark` shows."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from mgsym.cli import console

if TYPE_CHECKING:
    from mgsym.benchmark import Table


def benchmark_view(table: Table) -> None:
    """A line per model and how to read it; what is the same for all models stands below."""
    columns, rows = table.summary()
    cells = {name: [row[i] for row in rows] for i, name in enumerate(columns)}
    alike = {
        name: column[0]
        for name, column in cells.items()
        if name in ("budget", "device", "trainings") and len({*column} - {console.MISSING}) == 1
    }
    kept = [i for i, name in enumerate(columns) if name not in alike]
    console.table("", [columns[i] for i in kept], [[row[i] for i in kept] for row in rows])
    for name, text in alike.items():
        console.result(f"{name}: {text}")
    for note in table.notes():
        console.result(textwrap.fill(note, console.WIDTH))
