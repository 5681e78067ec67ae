"""Do the neighbours that an explanation selects decide the real barrier?

`prepare` explains atoms, displaces the neighbours that their explanations point at and as many
others at the same distances, and relaxes the structure; `measure` searches for saddles (ARTn) at
the atoms before and after.

**Why everything is relaxed freely.** A barrier is that of a minimum. A structure with displaced
atoms that are held in place is none, and holding the nearest neighbours itself changes what the
searches can find. A glass that is relaxed freely after a small displacement falls back into the
minimum it came from, where its barriers are what they were: that is an answer, and no search is
needed for it. So displacements grow, equally for both sets, until some of each lead to another
minimum (see `disturb`): a real one, of which the real barrier can be asked.

**What is compared.** Searches of different structures start with different pushes, so that their
errors are independent and add up as squares. An atom's change is the root mean square over its
draws, as a displacement may raise or lower its barrier. Noise alone would let about a third of the
atoms change by more than a standard error: that number is reported beside the count. A new minimum
lies higher than the old one, and from a high minimum barriers are low: so what tells the selected
atoms from others is the difference between both sets, not that a barrier changes at all.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mgsym.data_tools.displacement_test.changes import (
    FEWEST,
    Change,
    NodeChanges,
    Overall,
    Searched,
    change_of,
    overall,
    paired_difference,
    prediction_agreement,
)
from mgsym.data_tools.displacement_test.displace import ESCAPED, MOVING
from mgsym.data_tools.displacement_test.prepare import Prepared
from mgsym.data_tools.simulation.labelling.barriers import Labels, SearchRun, System, label_each
from mgsym.data_tools.simulation.labelling.schedule import Plan
from mgsym.data_tools.simulation.potentials.eam import EAM
from mgsym.data_tools.simulation.saddle_search.events import FOUND
from mgsym.data_tools.simulation.saddle_search.settings import ArtnSettings
from mgsym.structure.columns import BARRIER, BARRIER_STDERR, EVENTS
from mgsym.utils.devices import device_for_jobs
from mgsym.utils.files import atomic_path
from mgsym.utils.progress import Progress


@dataclass(frozen=True)
class PhysicsCheck:
    """Whether the selected neighbours change the real barrier more than others do.

    Attributes:
        structure, potential: names.
        nodes: what was found for each atom.
        selected, matched: over all atoms.
        difference, low, high: eV, mean over atoms of |Δ selected| − |Δ matched|, and its 95 %
            interval; None where it is not known.
        agreement: Pearson correlation between the changes predicted and found in new minima.
        searches, found: how many were made, and how many of them found a saddle.
        paths: the files written.
        warnings: what is missing, a line each.
    """

    structure: str
    potential: str
    nodes: tuple[NodeChanges, ...]
    selected: Overall
    matched: Overall
    difference: float | None
    low: float | None
    high: float | None
    agreement: float | None
    searches: int
    found: int
    paths: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """The answer in words."""
        ours, theirs = self.selected, self.matched
        if not ours.left and not theirs.left:
            return (
                "No displacement led to a new minimum, so no barrier changed: nothing can be said "
                "of either set; a longer --displace or more --atoms would"
            )
        count = (
            f"Selected neighbours change the barrier of {ours.exceeding} of {ours.nodes} atoms by "
            f"more than its standard error, matched ones of {theirs.exceeding} of {theirs.nodes} "
            f"(errors alone would make it {ours.by_chance:.1f} and {theirs.by_chance:.1f}). "
        )
        if self.difference is None:
            return count + "No atom has both, so they cannot be compared."
        answer = f"Selected ones change it by {self.difference:+.3f} eV more than matched ones"
        if self.low is None or self.high is None:
            return (
                f"{count}{answer}: too few atoms to tell that from chance (take {FEWEST} or more)."
            )
        interval = f"(95 % interval {self.low:+.3f} … {self.high:+.3f})"
        clear = self.low > 0 or self.high < 0
        word = "a significant difference" if clear else "no significant difference"
        return f"{count}{answer} {interval}: {word}."

    def to_dict(self) -> dict[str, Any]:
        """For JSON; energies in eV, lengths in Å."""
        simple = ("structure", "potential", "searches", "found")
        return {
            "verdict": self.verdict,
            **{name: getattr(self, name) for name in simple},
            "selected": asdict(self.selected),
            "matched": asdict(self.matched),
            "difference_of_sizes": {"mean": self.difference, "low": self.low, "high": self.high},
            "agreement_with_predictions": self.agreement,
            "nodes": [node.to_dict() for node in self.nodes],
            "warnings": list(self.warnings),
        }

    def table(self) -> list[dict[str, Any]]:
        """One row for each disturbance."""
        return [_row(node, change) for node in self.nodes for change in node.changes]


def measure(
    prepared: Prepared,
    potential: EAM,
    settings: ArtnSettings,
    *,
    searches: int = 10,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    jobs: int = 1,
    slots: int | None = None,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> PhysicsCheck:
    """Search for saddles at the atoms before and after, and write what came out.

    Args:
        prepared: by `prepare`, with this potential.
        potential: EAM.
        settings: of the searches.
        searches: from each atom, in each structure.
        resume: go on with the searches that the folder holds.
        overwrite: begin them again.
        device: ``auto``, ``cpu`` or ``cuda``; with several `jobs`, auto means the CPU.
        jobs: processes, on CPUs; they share the structures.
        slots, progress, should_stop: as of `barriers.SearchRun`.

    Raises:
        UsageError: searches are there, and neither `resume` nor `overwrite` is given.
        InputError: a structure is too small for the active region, or a file is of other searches.
        Interrupted: `should_stop` said so; the message tells how to go on.
    """
    place = device_for_jobs(device, jobs)
    plan = Plan.of(searches)
    results = label_each(
        _systems(prepared), potential, settings, plan=plan,
        run=SearchRun(
            resume=resume, overwrite=overwrite, device=str(place), jobs=jobs, slots=slots,
            progress=progress, should_stop=should_stop,
        ),
    )  # fmt: skip
    nodes = _node_changes(prepared, results)
    files = (prepared.folder / "physics.json", prepared.folder / "physics.csv")
    difference, low, high = paired_difference(nodes)
    result = PhysicsCheck(
        structure=prepared.start.name,
        potential=potential.name,
        nodes=nodes,
        selected=overall(nodes, "selected"),
        matched=overall(nodes, "matched"),
        difference=difference,
        low=low,
        high=high,
        agreement=prediction_agreement(nodes),
        searches=sum(labels.searches for labels in results),
        found=sum(labels.statuses.get(FOUND, 0) for labels in results),
        paths=(*files, *(prepared.folder / name for name in prepared.structures)),
        warnings=tuple(_warnings(nodes)),
    )
    _write(result, *files)
    return result


def _systems(prepared: Prepared) -> list[System]:
    """The structures to search in: the undisturbed one, then every new minimum."""
    folder, seed = prepared.folder / "searches", prepared.seed
    rows = sorted(prepared.nodes)
    systems = [System(prepared.start, rows, folder / "start.events.csv", seed)]
    for i, disturbance in enumerate(prepared.displacements):
        if disturbance.outcome == ESCAPED:
            structure = prepared.structures[disturbance.file]
            file = folder / f"{Path(disturbance.file).stem}.events.csv"
            systems.append(System(structure, [disturbance.node], file, seed + 1 + i))
    return systems


def _node_changes(prepared: Prepared, labels: Sequence[Labels]) -> tuple[NodeChanges, ...]:
    start, others = labels[0], iter(labels[1:])
    before = {node: _searched(start, node) for node in prepared.nodes}
    changes: dict[int, list[Change]] = {node: [] for node in prepared.nodes}
    for d in prepared.displacements:
        after = _searched(next(others), d.node) if d.outcome == ESCAPED else None
        changes[d.node].append(change_of(d, prepared.predicted[d.node], before[d.node], after))
    symbols, ids = prepared.start.symbols, prepared.start.ids.tolist()
    return tuple(
        NodeChanges(
            node, ids[node], symbols[node], prepared.predicted[node], before[node],
            prepared.attempts[node], prepared.passed_over[node], tuple(changes[node]),
        )
        for node in prepared.nodes
    )  # fmt: skip


def _searched(labels: Labels, node: int) -> Searched:
    columns = labels.structure.columns
    mean, stderr, events = (
        columns[name].values[node].item() for name in (BARRIER, BARRIER_STDERR, EVENTS)
    )
    return Searched.of(mean, stderr, int(events))


def _warnings(nodes: Sequence[NodeChanges]) -> list[str]:
    """What is missing."""
    warnings: list[str] = []
    for node in nodes:
        name = f"atom id {node.node_id} (node {node.node})"
        if not node.changes:
            warnings.append(
                f"{name}: no others are as far away as its selected neighbours: missing"
            )
        elif node.passed_over:
            warnings.append(
                f"{name}: {node.passed_over} of its most important neighbours are not selected, "
                "as too few others are as far away"
            )
        if node.before.stderr is None:
            warnings.append(f"{name} has {node.before.events} successful searches before: missing")
        lost = [
            c
            for c in node.changes
            if c.change is None and c.after is not None and node.before.stderr is not None
        ]
        if lost:
            warnings.append(
                f"{name}: {len(lost)} new minima have fewer than 2 successful searches: missing"
            )
        if any(c.disturbance.outcome == MOVING for c in node.changes):
            warnings.append(f"{name}: a displaced structure did not come to rest: left out")
    if any("successful searches" in line for line in warnings):
        warnings.append("more --searches with --resume fill what is missing")
    return warnings


def _row(node: NodeChanges, change: Change) -> dict[str, Any]:
    displacement = asdict(change.disturbance)
    displacement["rows"] = " ".join(map(str, displacement["rows"]))
    after = change.after or Searched(None, None, 0)
    return {
        "node": displacement.pop("node"),
        "id": node.node_id,
        "element": node.element,
        **displacement,
        **{f"before_{name}": value for name, value in asdict(node.before).items()},
        **{f"after_{name}": value for name, value in asdict(after).items()},
        "change": change.change,
        "stderr": change.stderr,
        "in_errors": change.in_errors,
        "predicted_before": node.predicted,
        "predicted_change": change.predicted_change,
    }


def _write(result: PhysicsCheck, whole: Path, table: Path) -> None:
    with atomic_path(whole) as temporary:
        temporary.write_text(json.dumps(result.to_dict(), indent=1) + "\n", encoding="utf-8")
    rows: list[Mapping[str, Any]] = list(result.table())
    with (
        atomic_path(table) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
