"""How strained glasses are shown."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mgsym.cli import console

if TYPE_CHECKING:
    from mgsym.data_tools.workflows.deformation import Strained
    from mgsym.data_tools.workflows.plasticity import Mean


def deform_view(strained: Strained, as_json: bool) -> None:
    """Glasses and comparisons as tables or JSON, then warnings and files."""
    if as_json:
        console.emit_json(
            {
                "glasses": strained.glasses,
                "foretold": [
                    {**f._asdict(), **{m: getattr(f, m)._asdict() for m in MEASURES}}
                    for f in strained.foretold
                ],
                "written": strained.paths,
            }
        )
    else:
        _tables(strained)
    for glass in strained.glasses:
        if not glass.converged:
            console.warn(
                f"{glass.structure} {glass.direction}: a minimisation ran out of steps: take more "
                "--max-steps, or ask less with --fmax"
            )
    console.wrote(strained.paths)


MEASURES = ("spearman", "overlap", "auc")


def _tables(strained: Strained) -> None:
    names = ("structure", "direction", "strain", "modulus GPa", "highest GPa", "at", "D²min Å²")
    rows = [
        (
            g.structure, g.direction, f"{g.strain:g}", f"{g.modulus:.1f}",
            f"{g.largest_stress:.3f}", f"{g.at_strain:g}", f"{g.d2min:.3f}",
        )
        for g in strained.glasses
    ]  # fmt: skip
    console.table("", names, rows)
    if strained.foretold:
        columns = ("strain", "foretold by", "Spearman", "5 % in 5 %", "AUC")
        foretold = [
            (f"{f.strain:g}", f.name, *(_interval(getattr(f, m)) for m in MEASURES))
            for f in strained.foretold
        ]
        console.table("D²min, mean and 95 % interval", columns, foretold)


def _interval(value: Mean) -> str:
    if math.isnan(value.low):
        return f"{value.mean:.3f}"
    return f"{value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]"
