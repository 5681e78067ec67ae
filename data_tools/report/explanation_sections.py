"""What a report says of explanations: a few atoms in detail, and statistics of their bonds."""

from __future__ import annotations

from collections.abc import Sequence

from mgsym.data_tools.report.facts import ExplainedNodes, ReportFacts
from mgsym.rendering import tables
from mgsym.rendering.explanation_figures import curves_figure, statistics_figure, turning_figure
from mgsym.rendering.page import Html, folded, heading, paragraph, picture, table, view
from mgsym.rendering.tables import Cell

PROOF = {
    "weakened": "For a proof the others, or these, are weakened by a tenth:",
    "replaced": "For a proof the others, or these, are replaced by those of other atoms:",
    "deleted": "For a proof the others, or these, are deleted:",
}
HOPS = "A bond of hop 1 is one of the atom itself, one of hop 2 of a neighbour, and so on."


def explanations(report: ReportFacts) -> list[Html]:
    """The edges behind a few predictions, and what they are worth."""
    explained = report.explained
    if explained is None:
        return [paragraph(_unexplained(report))]
    k, scale = report.settings.topk, explained.faithfulness.label_scale
    several = len(report.ensemble) > 1
    which = f" Of the {len(report.ensemble)} models the first was explained." if several else ""
    text = (
        f"Atoms of “{report.shown.name}” with the highest, middle and lowest predicted barriers. "
        f"For each the method {report.settings.method} found the {k} bonds on which the prediction "
        f"rests.{which} {PROOF[explained.faithfulness.perturbation]} the prediction should stay "
        "where it is with these bonds alone (small is good), and move without them (large is "
        "good), more than with as many other bonds as far away from the atom."
    )
    caption = f"Changes of the prediction in standard deviations of the label ({scale:.3f} eV)."
    parts = [paragraph(text), table(*_atoms(explained), caption)]
    ratios = {name: sorted(values) for name, values in explained.faithfulness.ratios().items()}
    medians = table(
        *tables.faithfulness_medians(explained.faithfulness),
        f"Medians over {len(explained.explanations)} atoms, in label sd. Against bonds as far away "
        f"the explained ones are {_median(ratios['sufficiency']):.1f} times better alone and "
        f"{_median(ratios['necessity']):.1f} times more missed (medians).",
    )
    parts += [medians, *_examples(explained)]
    return parts


def _unexplained(report: ReportFacts) -> str:
    if report.settings.nodes == 0:
        return "No explanations were asked for (--nodes 0)."
    member = report.ensemble.members[0]
    name = "This model" if member.metadata is None else f"The model {member.metadata.model.name}"
    return f"{name} makes no use of edges, so there are none to explain its predictions by."


def _atoms(explained: ExplainedNodes) -> tables.Table:
    groups = {n: group for group, nodes in explained.statistics.nodes.items() for n in nodes}
    rows: list[list[Cell]] = []
    for explanation, measured in zip(
        explained.explanations, explained.faithfulness.nodes, strict=True
    ):
        worth = measured.measures()
        kinds = ("explanation", "matched")
        rows.append([
            f"{explanation.element} {explanation.node_id}", explanation.node,
            groups[explanation.node], f"{explanation.prediction:.3f}",
            None if explanation.label is None else f"{explanation.label:.3f}", len(explanation),
            *(f"{worth[m][kind]:.3f}" for m in ("sufficiency", "necessity") for kind in kinds),
            None if explanation.agreement is None else f"{explanation.agreement:.3f}",
        ])  # fmt: skip
    names = (
        "atom (id)", "node", "barrier", "predicted/eV", "label/eV", "bonds", "these alone",
        "others alone", "without these", "without others", "agreement",
    )  # fmt: skip
    return names, rows


def _examples(explained: ExplainedNodes) -> list[Html]:
    """The highest, a middle and the lowest atom in detail; the first one to turn."""
    firsts = {group: nodes[0] for group, nodes in explained.statistics.nodes.items() if nodes}
    if "low" in firsts:
        firsts["low"] = explained.statistics.nodes["low"][-1]
    parts: list[Html] = []
    for group, node in firsts.items():
        place = [explanation.node for explanation in explained.explanations].index(node)
        explanation, measured = explained.explanations[place], explained.faithfulness.nodes[place]
        prefix = "" if group == "all" else f"{group} barrier: "
        parts.append(heading(f"{prefix}{explanation.element} atom, id {explanation.node_id}"))
        caption = (
            "How far the prediction moves with so many of the best bonds alone (left) and "
            "without them (right): the explained bonds, others as far away (matched), and random "
            "ones. The explained curve should be low on the left and high on the right."
        )
        parts.append(picture(curves_figure([measured]), caption, "Insertion and deletion curves"))
        parts.append(
            folded(
                f"The {len(explanation)} {explanation.counted}",
                table(*tables.edges(explanation), HOPS),
            )
        )
        if place == 0:
            caption = (
                "The atom (diamond), the bonds behind its prediction (the darker, the more "
                "important) and their atoms. Hollow marks are periodic images, drawn where the "
                "bond really goes. Drag to turn; the pointer shows each atom and bond."
            )
            parts.append(view(turning_figure(explained.graph, explanation), caption, "view-edges"))
    return parts


def statistics(report: ReportFacts) -> list[Html]:
    """What the edges of the explained atoms have in common."""
    explained = report.explained
    if explained is None:
        return [paragraph(f"{_unexplained(report)} So there are no statistics of them.")]
    count = len(explained.explanations)
    caption = (
        "Left and middle: how far from the atom the explained bonds lie and how long they are, "
        "beside bonds as far away (matched, so that their distances agree by construction) and any "
        "others (random). Right: effects against "
        "matched bonds in standard deviations, with 95 % intervals over atoms; an interval that "
        "leaves out 0 is a difference that these atoms share."
    )
    few = (
        f"{count} atoms are few: take this as a first look, and mgsym explain-stats --nodes 30 "
        "--faithfulness for a result."
        if count < 30
        else f"{count} atoms."
    )
    names, rows = tables.effects(explained.statistics)
    everyone = [row for row in rows if row[1] == "all"]
    more = folded("By group: high, middle and low barriers", table(names, rows))
    return [
        paragraph(few),
        picture(statistics_figure(explained.statistics), caption, "Statistics of explained bonds"),
        table(names, everyone, "Means over atoms, and Cohen's d of the difference."),
        more,
    ]


def _median(ordered: Sequence[float]) -> float:
    return ordered[len(ordered) // 2]
