"""How the physics check of explanations is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mgsym.cli import console

if TYPE_CHECKING:
    from mgsym.data_tools.displacement_test.changes import NodeChanges, Overall
    from mgsym.data_tools.displacement_test.measure import PhysicsCheck

KINDS = ("selected", "matched")


def physics_view(check: PhysicsCheck, as_json: bool = False) -> None:
    """What every atom's barrier did, and the verdict; or JSON; then warnings and files."""
    if as_json:
        console.emit_json(check.to_dict())
    else:
        rows = [_row(node, kind) for node in check.nodes if node.changes for kind in KINDS]
        names = ("atom (node)", "displaced", "by/Å", "new minima", "barrier/eV",
                 "change/eV", "its error/eV", "changed?", "predicted/eV")  # fmt: skip
        title = (
            f"{check.structure}: barriers from searches, and root mean square change when "
            "neighbours are displaced and all relaxes"
        )
        console.table(title, names, rows)
        console.table(
            "All atoms",
            ("displaced", "new minima", "atoms changed", "by errors alone", "mean change/eV",
             "beyond errors/eV", "predicted/eV"),
            [_total(kind, getattr(check, kind)) for kind in KINDS],
        )  # fmt: skip
        if check.agreement is not None:
            console.result(
                f"Predicted and found changes in new minima: Pearson {check.agreement:.3f}"
            )
        console.result(check.verdict)
    for warning in check.warnings:
        console.warn(warning)
    console.wrote(check.paths)


def _row(node: NodeChanges, kind: str) -> list[console.Cell]:
    own = [c for c in node.changes if c.disturbance.kind == kind]
    left = sum(c.disturbance.outcome == "new minimum" for c in own)
    b, exceeds = node.before, node.exceeds(kind)
    barrier = None if b.mean is None else f"{b.mean:.3f} ± {b.stderr or 0:.3f}"
    predicted = [c.predicted_change or 0.0 for c in own]
    first = kind == KINDS[0]
    return [
        f"{node.element} {node.node_id} ({node.node})" if first else "",
        f"{len(own[0].disturbance.rows)} {kind}",
        f"{own[0].disturbance.length:.2f}",
        f"{left} of {len(own)}",
        barrier if first else "",
        _number(node.size(kind)),
        _number(node.error(kind)),
        None if exceeds is None else "yes" if exceeds else "no",
        _number((sum(p * p for p in predicted) / len(predicted)) ** 0.5),
    ]


def _total(kind: str, total: Overall) -> list[console.Cell]:
    return [
        kind,
        f"{total.left} of {total.displacements}",
        f"{total.exceeding} of {total.nodes}",
        f"{total.by_chance:.1f}",
        _number(total.size),
        _number(total.beyond_errors),
        _number(total.predicted),
    ]


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"
