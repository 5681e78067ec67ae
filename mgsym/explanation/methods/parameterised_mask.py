"""One network that explains every atom: PGExplainer, with RegExplainer's remedy for regression.

PGExplainer (Luo et al., "Parameterized Explainer for Graph Neural Network", NeurIPS 2020) trains a
small network g on several atoms at once. It gives every edge e of their computation graphs a logit
ω_e = g(x_e) from the edge's features, and masks are drawn from the binary concrete distribution
(their eq. 4),

    m_e = σ((ω_e − t + log u − log(1 − u)) / τ),    u uniform in 0 … 1,

t such that Σ σ(ω − t) is the budget. The chance of m_e > ½ is σ(ω_e − t) at every temperature.

RegExplainer (Zhang et al., "RegExplainer: Generating Explanations for Graph Neural Networks in
Regression Tasks", NeurIPS 2024) notes that the masked graph alone is nothing that the model was
trained on: a prediction for 50 edges out of thousands is extrapolated. So an explanation is put
into the rest of other graphs, which is irrelevant for the label (`mixup`), and the prediction
f_i′ of the mixture should tell which atom i was explained: minimise

    log(1 + (d_i/s)²) + contrast · −log [ exp(−d_i²/2h²) / Σ_j exp(−d_j²/2h²) ]
                      + anchor · ½ mean (ω − log|φ|)²,        d_j = f_i′ − c − f_j,

with f_j the full predictions for all atoms j of training, s the label's standard deviation, and h
half of the standard deviation of the f_j. The first term is the information bottleneck's I(G*; Y)
for a regression, the second InfoNCE; its I(G; G*) is the budget. The running mean c of f_i′ − f_i
is there because mixtures are a little strange to a model all the same: what they all have in
common tells of no atom.

What differs. From PGExplainer: a budget instead of terms for size and entropy; x_e holds more than
hidden representations (edge_features.py), so that models without them can be explained; and it
holds the integrated gradient φ_e of the edge, at whose logarithm ω starts and to which it is
anchored as in `edge_mask`, since two edges that look alike need not count alike. An unseen atom
then takes some backward passes and one pass of the network; with ``slopes=0`` φ is left out (ω
starts at and is anchored to zero) and it takes forward passes only, as published. From both: edges
are whole or deleted in f_i′, and the gradient is that of m (straight-through), as half an edge is
as strange to a model as a missing one. From RegExplainer: the other graphs are the surroundings of
other atoms in the same computation graph, drawn anew in each step; the rest is not learned from;
InfoNCE compares predictions, which are ordered, instead of representations, with all atoms of
training instead of one nearer and one farther.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mgsym.errors import UsageError
from mgsym.explanation.computation_graph import (
    ComputationGraph,
    frozen_eval,
    full_prediction,
    model_computation_graph,
)
from mgsym.explanation.explanation import Explanation
from mgsym.explanation.methods.attribution import midpoints, path_slopes, without_gradient
from mgsym.explanation.methods.edge_features import (
    EdgeFeatures,
    EdgeScorer,
    edge_features_of,
    node_features_of,
)
from mgsym.explanation.methods.masks import HIGHEST, LOWEST, at_least, probabilities, threshold
from mgsym.explanation.methods.mixup import mixup
from mgsym.graph import Graph
from mgsym.models.base import BarrierModel
from mgsym.utils.progress import Progress

NAME = "parameterised-mask"
POOL = 600  # edges that may explain in one step
WARM, COLD = 1.0, 0.3  # temperatures of the first and the last step
CONTRAST = 0.5  # width of InfoNCE, in standard deviations between the atoms of training
SMALLEST = 0.01  # label sd; atoms whose predictions differ by less are not to be told apart
SHIFT_RATE = 0.2  # of the running mean
STEEPEST = 1.0  # norm at which gradients are cut: a mixture may fall far from all others


@dataclass(frozen=True, eq=False)
class _Case:
    """An atom to train on: its computation graph, full prediction in eV, and features."""

    part: ComputationGraph
    full: float
    looks: EdgeFeatures


class ParameterisedExplainer:
    """Trained on some atoms, explains any atom.

        explainer = ParameterisedExplainer(budget=30).fit(model, graph, nodes)
        explainer.explain(node)

    Args:
        budget: how many edges a mask is to keep, Σ m.
        steps: of Adam, each on one atom; they take turns.
        learning_rate: of Adam; it falls to zero.
        contrast, anchor: weights of InfoNCE and of the anchor to the start.
        slopes: points at which the slopes of the prediction are taken; 0 looks at none.
        width: of the network's hidden layer.

    Raises:
        UsageError: a setting makes no sense.
    """

    def __init__(
        self,
        *,
        budget: int = 50,
        steps: int = 60,
        learning_rate: float = 0.02,
        contrast: float = 2.0,
        anchor: float = 0.1,
        slopes: int = 4,
        width: int = 32,
    ) -> None:
        at_least(1, budget=budget, steps=steps, width=width)
        at_least(0, slopes=slopes)
        weights = {"learning_rate": learning_rate, "contrast": contrast, "anchor": anchor}
        for name, value in weights.items():
            if not 0 <= value < math.inf:
                raise UsageError(f"{name} is {value:g}, expected a number of at least 0")
        self.budget, self.steps, self.width, self.slopes = budget, steps, width, slopes
        self.learning_rate, self.contrast, self.anchor = learning_rate, contrast, anchor
        self._fitted: tuple[BarrierModel, Graph, EdgeScorer] | None = None

    def fit(
        self,
        model: BarrierModel,
        graph: Graph,
        nodes: Sequence[int],
        *,
        seed: int | torch.Generator = 0,
        progress: Progress | None = None,
    ) -> ParameterisedExplainer:
        """Train the network on some atoms.

        Args:
            model: what is explained; it is given back as it was.
            graph: one structure or a batch.
            nodes: the atoms, at least one.
            seed: of everything random, or what draws it.
            progress: called as progress(step, steps, error=…), the error in label sd.

        Returns:
            Itself.

        Raises:
            UsageError: no atoms, an atom that cannot be explained, or a model without gradients.
        """
        if len(nodes) == 0:
            raise UsageError("no atoms to train the explainer on, expected at least one")
        if isinstance(seed, int):
            seed = torch.Generator().manual_seed(seed)
        with frozen_eval(model) as where:
            here = graph.to(where)
            cases = self._cases(
                model, [model_computation_graph(here, model, node) for node in nodes]
            )
            scorer = EdgeScorer([case.looks for case in cases], self.width, seed)
            self._train(model, cases, scorer, seed, progress)
        self._fitted = model, here, scorer.requires_grad_(False)
        return self

    def explain(self, node: int, graph: Graph | None = None) -> Explanation:
        """Explain an atom, seen in training or not, without training.

        Args:
            node: its row.
            graph: where it is; by default the graph of training.

        Raises:
            UsageError: there is no such atom or it has no neighbour, or `fit` was not called.
        """
        if self._fitted is None:
            raise UsageError("this explainer is not trained: call fit first")
        model, own, _ = self._fitted
        with frozen_eval(model) as where:
            return self.explain_cone(
                model_computation_graph(own if graph is None else graph.to(where), model, node)
            )

    def explain_cone(self, part: ComputationGraph) -> Explanation:
        """As `explain`, of a computation graph, with the model in eval mode."""
        assert self._fitted is not None
        model, _, scorer = self._fitted
        (case,) = self._cases(model, [part])
        with torch.no_grad():
            mask = probabilities(scorer(case.looks, part), self.budget)
            masked = float(part.predict(model, mask))
        return part.explanation(NAME, mask, prediction=case.full, masked_prediction=masked)

    def _cases(self, model: BarrierModel, parts: Sequence[ComputationGraph]) -> list[_Case]:
        """What there is to see of some computation graphs of one graph."""
        nodes = torch.cat([part.nodes for part in parts]).unique()
        atoms = node_features_of(model, parts[0].parent, nodes, parts[0].depth)
        cases = []
        for part in parts:
            full = full_prediction(model, part)
            slopes = path_slopes(model, part, midpoints(self.slopes)) if self.slopes else None
            edges, start = edge_features_of(part, slopes, self.budget)
            looks = EdgeFeatures(atoms[torch.searchsorted(nodes, part.nodes)], edges, start)
            cases.append(_Case(part, full, looks))
        return cases

    def _train(
        self,
        model: BarrierModel,
        cases: Sequence[_Case],
        scorer: EdgeScorer,
        generator: torch.Generator,
        progress: Progress | None,
    ) -> None:
        scale = float(model.label_scale)
        others = torch.tensor([case.full for case in cases], device=scorer.bias.device) / scale
        apart = CONTRAST * max(float(others.std(correction=0)), SMALLEST)
        optimizer = torch.optim.Adam(scorer.parameters(), lr=self.learning_rate)
        turns, shift = _turns(len(cases), generator), 0.0
        for step in range(self.steps):
            place = next(turns)
            part, looks = cases[place].part, cases[place].looks
            logits = scorer(looks, part)
            own = part.edges_of(_pool(part, logits.detach(), self.budget))
            temperature = WARM * (COLD / WARM) ** (step / self.steps)
            mask = concrete(within_budget(logits, self.budget), temperature, generator)
            drawn = whole_or_none(mask)[part.bond]
            mixed = mixup(part, own, generator).predict(model, drawn) / scale
            if not mixed.requires_grad:
                raise without_gradient()
            shift += SHIFT_RATE * (float(mixed.detach() - others[place]) - shift)
            error = mixed - shift - others
            loss = (1 + error[place].square()).log()
            loss = loss + self.contrast * _info_nce(error / apart, place)
            loss = loss + self.anchor / 2 * (logits - looks.start).square().mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(scorer.parameters(), STEEPEST)
            optimizer.param_groups[0]["lr"] = self.learning_rate * (1 - step / self.steps)
            optimizer.step()
            if progress is not None:
                progress(step + 1, self.steps, error=abs(float(error[place].detach())))


def within_budget(logits: Tensor, budget: int) -> Tensor:
    """[m], ω − t, with the gradient of t too: what raises all edges alike raises none."""
    shift = threshold(logits.detach(), budget)
    kept = (logits.detach() - shift).sigmoid()
    slope = kept * (1 - kept)
    moving = (slope * (logits - logits.detach())).sum() / slope.sum().clamp(min=1e-12)
    return logits - shift - moving


def concrete(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """[m] in 0 … 1, drawn from the binary concrete distribution; > ½ with probability σ(logit)."""
    chance = torch.rand(len(logits), generator=generator).clamp(1e-6, 1 - 1e-6)
    return ((logits + chance.logit().to(logits.device)) / temperature).sigmoid()


def whole_or_none(mask: Tensor) -> Tensor:
    """[m], 1 where the mask is above ½, else 0, with the gradient of the mask itself."""
    return mask + ((mask > 0.5).to(mask.dtype) - mask).detach()


def _pool(part: ComputationGraph, logits: Tensor, budget: int) -> Tensor:
    """[p] int64, the bonds that may explain: those of largest logit, and all into the atom."""
    first = logits + torch.where(part.hop[part.first] == 1, HIGHEST - LOWEST, 0.0)
    pool = first.argsort(descending=True, stable=True)[: max(POOL, 2 * budget)]
    return pool.sort().values


def _info_nce(distance: Tensor, place: int) -> Tensor:
    """−log of the likeness of an atom's prediction among those of all atoms.

    Args:
        distance: [atoms], of the mixture's prediction from everyone's, in widths.
        place: of the atom itself.
    """
    likeness: Tensor = -distance.square() / 2
    return likeness.logsumexp(0) - likeness[place]


def _turns(count: int, generator: torch.Generator) -> Iterator[int]:
    """Everyone once in a new order, again and again."""
    while True:
        yield from torch.randperm(count, generator=generator).tolist()


def parameterised_mask(
    model: BarrierModel,
    part: ComputationGraph,
    generator: torch.Generator,
    progress: Progress | None,
    *,
    budget: int = 50,
    atoms: int = 8,
    steps: int = 60,
    learning_rate: float = 0.02,
    contrast: float = 2.0,
    anchor: float = 0.1,
    slopes: int = 4,
    width: int = 32,
) -> Explanation:
    """Train a network on the atom and others of its structure, then let it explain the atom.

    To explain many atoms train once: `ParameterisedExplainer`.

    Args:
        budget: how many edges the mask is to keep, Σ m.
        atoms: how many to train on, this one among them.
        steps, learning_rate, contrast, anchor, slopes, width: as in `ParameterisedExplainer`.
    """
    at_least(1, atoms=atoms)
    explainer = ParameterisedExplainer(
        budget=budget, steps=steps, learning_rate=learning_rate, contrast=contrast,
        anchor=anchor, slopes=slopes, width=width,
    )  # fmt: skip
    graph, node = part.parent, int(part.nodes[part.node])
    alike = (graph.structure_index == graph.structure_index[node]) & (graph.offsets.diff() > 0)
    alike[node] = False
    others = torch.nonzero(alike).squeeze(1).cpu()
    others = others[torch.randperm(len(others), generator=generator)[: atoms - 1]]
    explainer.fit(model, graph, [node, *others.tolist()], seed=generator, progress=progress)
    return explainer.explain_cone(part)
