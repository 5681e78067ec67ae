"""Tables of explanations: one atom, many atoms, and what they are worth."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from mgsym.cli import console

SHOWN = 20  # neighbours; all are in the file

if TYPE_CHECKING:
    from mgsym.data_tools.workflows.explanation import Explained
    from mgsym.explanation import Explanation
    from mgsym.explanation.faithfulness import Faithfulness, NodeFaithfulness
    from mgsym.explanation.neighbors import NearAtom
    from mgsym.explanation.neighbour_statistics import NeighbourStatistics
    from mgsym.explanation.planted import PlantedScores
    from mgsym.explanation.statistics import EdgeStatistics
    from mgsym.explanation.whole import Attribution


def explanation_view(explained: Explained) -> None:
    """The atom, the edges behind its prediction, and what they are worth."""
    from mgsym.rendering import tables

    explanation, worth, whole = explained.explanation, explained.faithfulness, explained.attribution
    masked = explanation.masked_prediction
    items = {
        "atom": f"{explanation.element}, id {explanation.node_id}",
        "predicted": f"{explanation.prediction:.4f} eV"
        if whole is None or whole.models == 1
        else f"{whole.prediction:.4f} eV, mean of {whole.models} models "
        f"({explanation.prediction:.4f} eV the one whose {explanation.counted} follow)",
        f"these {explanation.counted}": None if masked is None else f"{masked:.4f} eV",
        "label": None if explanation.label is None else f"{explanation.label:.4f} eV",
        "method": explanation.method,
        "agreement": None
        if explanation.agreement is None
        else f"{explanation.agreement:.3f} (initialisations)",
        "usually": None
        if whole is None
        else f"{whole.reference:.4f} eV ({whole.environments} "
        f"training environments of {whole.element})",
    }
    console.facts(f"{explanation.structure}: node {explanation.node}", items)
    if whole is not None:
        attribution_view(whole)
    title = (
        "Edges by importance; hop 1 arrives at the atom, hop 2 at a neighbour"
        if explanation.reverse is None
        else "Bonds by importance; those of hop 1 are the atom's, of hop 2 a neighbour's"
    )
    console.table(title, *tables.edges(explanation))
    _hop_table(explanation)
    _near_table(explained.near, explanation.reverse is None)
    for faithfulness in (worth, *explained.otherwise):
        _worth_table(faithfulness)


WHOLE = {
    "weakened": "edges weakened by a tenth, the whole model",
    "replaced": "edges replaced by those of other atoms, the network",
    "deleted": "edges deleted, the network",
}


def _worth_table(worth: NodeFaithfulness) -> None:
    """How far the prediction moves with the first edges alone and without them, at every k."""
    rows: list[list[console.Cell]] = [
        [
            row.k,
            f"{row.sufficiency:.3f}",
            f"{row.random_sufficiency:.3f} ± {row.random_sufficiency_sd:.3f}",
            f"{row.necessity:.3f}",
            f"{row.random_necessity:.3f} ± {row.random_necessity_sd:.3f}",
        ]
        for row in worth.in_label_sd()
    ]
    what = worth.perturbation
    names = (worth.counted, "these alone", "random alone", f"these {what}", f"random {what}")
    title = f"Change of the prediction in label sd ({worth.label_scale:.3f} eV): {WHOLE[what]}"
    console.table(title, names, rows)


def attribution_view(attribution: Attribution) -> None:
    """What the neighbours add to the whole prediction, beyond typical ones."""
    from mgsym.rendering import tables

    value = attribution.value
    title = (
        f"Neighbours beyond typical ones: {int((value > 0).sum())} raise the barrier by "
        f"{float(value.clamp(min=0).sum()):.4f} eV, {int((value < 0).sum())} lower it by "
        f"{-float(value.clamp(max=0).sum()):.4f} eV"
    )
    console.table(title, *tables.neighbours(attribution, SHOWN))


def _hop_table(explanation: Explanation) -> None:
    """How many of the bonds lie how many hops away from the atom."""
    rows: list[list[console.Cell]] = []
    for hop in sorted(set(explanation.hop.tolist())):
        own = explanation.hop == hop
        share = float(
            explanation.importance[own].sum() / explanation.importance.sum().clamp(min=1e-30)
        )
        length = float(explanation.distance[own].mean())
        rows.append([hop, int(own.sum()), f"{length:.3f}", f"{100 * share:.0f} %"])
    names = ("hop", explanation.counted, "mean distance/Å", "of all importance")
    console.table("Hop by hop", names, rows)


def _near_table(near: Sequence[NearAtom], directed: bool) -> None:
    """The nearest atoms, and which of their bonds were selected."""
    rows: list[list[console.Cell]] = [
        [
            f"{atom.element} {atom.node_id}",
            f"{atom.distance:.3f}",
            "no" if atom.to_atom is None else f"{atom.to_atom:.3g}",
            *(["no" if atom.from_atom is None else f"{atom.from_atom:.3g}"] if directed else []),
            atom.selected,
        ]
        for atom in near
    ]
    joined = ("edge to the atom", "edge from it") if directed else ("bond with the atom",)
    names = ("nearest (id)", "distance/Å", *joined, "selected in all")
    title = "The nearest atoms: are they joined to the atom by what is selected?"
    console.table(title, names, rows)


def planted_view(scores: PlantedScores) -> None:
    """How many planted edges each method found."""
    rows: list[list[console.Cell]] = [
        [name, f"{value:.3f}", f"{scores.lowest[name]:.3f}"]
        for name, value in scores.precision_at_k.items()
    ]
    title = (
        f"{scores.structure}: share of planted bonds among the k most important, "
        f"{len(scores.nodes)} atoms, k = {min(scores.k)} to {max(scores.k)}"
    )
    console.table(title, ("method", "precision at k", "worst atom"), rows)


def faithfulness_view(faithfulness: Faithfulness) -> None:
    """What explanations are worth beside other edges: medians over atoms."""
    from mgsym.rendering import tables

    title = (
        f"Change of the prediction in label sd ({faithfulness.label_scale:.3f} eV), "
        f"medians over {len(faithfulness.nodes)} atoms: {WHOLE[faithfulness.perturbation]}"
    )
    console.table(title, *tables.faithfulness_medians(faithfulness))
    for measure, values in faithfulness.ratios().items():
        console.result(
            f"{measure}: {median(values):.2f} times better than bonds as far away "
            f"(median; {min(values):.2f} … {max(values):.2f})"
        )
    if (agreement := faithfulness.agreement()) is not None:
        console.result(f"rank agreement between initialisations: {agreement:.3f} (median)")


def statistics_view(statistics: EdgeStatistics) -> None:
    """Properties of selected edges against those of matched edges."""
    from mgsym.rendering import tables

    title = (
        f"The {statistics.k} bonds of each atom by {statistics.method} against others as far away; "
        "effect in standard deviations (Cohen's d); "
        f"{statistics.missing:.1f} bonds an atom unmatched"
    )
    console.table(title, *tables.effects(statistics))


def neighbours_view(neighbours: NeighbourStatistics) -> None:
    """Where the neighbours lie that act on predictions, and what the strongest are."""
    from mgsym.rendering import tables

    title = (
        f"What neighbours add to the whole prediction, {neighbours.nodes} atoms: where it is, and "
        f"what the {neighbours.strongest} strongest of each are"
    )
    console.table(title, *tables.neighbour_effects(neighbours))
