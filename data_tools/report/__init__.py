"""A trained run as one HTML page that opens without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mgsym.data_tools.report.facts import ReportSettings, gather
from mgsym.data_tools.report.sections import foot, report_sections
from mgsym.data_tools.workflows.model_inputs import Potential
from mgsym.rendering.explanation_figures import check_page
from mgsym.rendering.figures import new_figure
from mgsym.rendering.page import page
from mgsym.training.runs import run_home
from mgsym.utils.files import atomic_path
from mgsym.utils.progress import Progress

REPORT = "report.html"


@dataclass(frozen=True)
class Report:
    """What `write_report` wrote.

    Attributes:
        path: the page.
        structures: names of the structures in it, by role.
        explained: how many atoms were explained.
        notes: what was chosen for the caller.
        warnings: why something may not be trusted.
    """

    path: Path
    structures: Mapping[str, tuple[str, ...]]
    explained: int
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def write_report(
    run: str | Path,
    out: str | Path | None = None,
    graphs: Sequence[str | Path] = (),
    settings: ReportSettings | None = None,
    *,
    types: Mapping[int, str] | None = None,
    potential: Potential = None,
    device: str | torch.device = "auto",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Write the report of a run.

    Args:
        run: a run, a folder of seeds, a checkpoint or an ensemble.
        out: the page, .html; by default ``report.html`` in the run directory, or here for a model
            without one.
        graphs, settings, types, potential, device, progress: as for
            `mgsym.data_tools.report_facts.gather`.
        overwrite: replace an existing page.

    Raises:
        UsageError: matplotlib or plotly is missing, `out` exists or is no .html, or so many atoms
            cannot be explained.
        InputError: the run or its structures are missing or damaged.
    """
    path = check_page((run_home(run) or Path()) / REPORT if out is None else out, overwrite)
    new_figure((1.0, 1.0))  # refuses to go on without matplotlib
    facts = gather(
        run, graphs, settings, types=types, potential=potential, device=device, progress=progress
    )
    lead = (
        "What the model was trained on, how well it predicts energy barriers around atoms, and "
        "what its predictions rest on."
    )
    text = page(f"Report of {Path(run).resolve().name}", lead, report_sections(facts), foot())
    with atomic_path(path, overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")
    shown = {role: tuple(s.name for s in several) for role, several in facts.roles.items()}
    explained = 0 if facts.explained is None else len(facts.explained.explanations)
    several = len(facts.ensemble) > 1 and explained
    notes = (f"Of {len(facts.ensemble)} models the first is explained",) if several else ()
    return Report(path, shown, explained, notes, facts.warnings)
