"""Models that are fitted in one go, from local inputs, without gradients.

Nothing in them is seen by an optimiser: `fit` finds everything from the training structures, and
`mgsym train` calls it once in place of its epochs. They read positions and cell, never edges, so
that ``uses_edges`` is false and their receptive field is a distance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mgsym.descriptors.local import LocalInputs, LocalOptions
from mgsym.errors import UsageError
from mgsym.graph import Graph
from mgsym.graph.operations import glass_of
from mgsym.graph.prepared import Owner
from mgsym.models.base import BarrierModel
from mgsym.models.regression.moments import STRENGTHS, Moments, choose_strength
from mgsym.utils.progress import Progress, silent

USUAL_STRENGTH = 30.0  # where a single glass trains


class DirectModel(BarrierModel):
    """A model of an atom's features (mgsym.descriptors.local).

    A subclass implements `fit_features` and `standardised`.

    Args:
        species: the elements it knows.
        cutoff: Å, of the graphs it takes.
        options: which inputs.
    """

    uses_edges = False

    def __init__(self, species: tuple[str, ...], cutoff: float, options: LocalOptions) -> None:
        super().__init__(species, cutoff, hops=0)
        self.options = options
        self.inputs = LocalInputs(options, len(species))

    @property
    def receptive_field(self) -> float:
        """Å: how far the descriptors of the farthest atom averaged over reach."""
        return self.options.reach

    @property
    def num_parameters(self) -> int:
        """How many numbers are fitted: all that the model keeps."""
        return sum(b.numel() for b in self.state_dict().values())

    def owner(self) -> Owner:
        """All that descriptors depend on; statistics and what was fitted play no part."""
        return self.inputs.owner

    def from_positions(self, graph: Graph, progress: Progress | None = None) -> dict[str, Tensor]:
        """The descriptors of its atoms."""
        return self.inputs.described(graph)

    @torch.no_grad()
    def fit(self, graphs: Sequence[Graph], progress: Progress | None = None) -> None:
        """Find everything that the model has learnt from labelled structures.

        Args:
            graphs: one structure each, on the model's device; prepared ones cost less.
            progress: called with steps done and in all.

        Raises:
            InputError: no atom has a label, or a graph lacks a physical input.
        """
        self.fit_statistics(graphs)
        graphs = [self.prepare(graph) for graph in graphs if bool(graph.labelled.any())]
        self.inputs.fit(graphs)
        self.fit_features(graphs, progress or silent)

    def fit_features(self, graphs: Sequence[Graph], progress: Progress) -> None:
        """Fit what takes the features to the standardised label; every graph has labels."""
        raise NotImplementedError

    def moments(self, graphs: Sequence[Graph], tell: Callable[[int], None]) -> dict[str, Moments]:
        """Second moments of features and standardised label, by glass.

        Args:
            graphs: labelled.
            tell: called with the number of structures done.
        """
        by_glass: dict[str, Moments] = {}
        for i, graph in enumerate(graphs):
            labelled = graph.labelled
            own = Moments.of(
                self.inputs.features(graph)[labelled],
                self.standard_target(graph)[labelled],
                labels_weigh(graph),
            )
            glass = glass_of(graph)
            by_glass[glass] = Moments.sum([by_glass[glass], own]) if glass in by_glass else own
            tell(i + 1)
        return by_glass

    def standard_target(self, graph: Graph) -> Tensor:
        """[n], the label in units of its standard deviation, mean subtracted."""
        return (graph.target - self.label_mean) / self.label_scale


def labels_weigh(graph: Graph) -> Tensor:
    """How much each label counts, for the labelled atoms of a graph: [labels]."""
    weight = graph.label_weight
    return (torch.ones_like(graph.target) if weight is None else weight)[graph.labelled]


def refuse_start(model: BarrierModel, name: str) -> None:
    """Refuse to go on from a model that is always fitted anew.

    Raises:
        UsageError: it is one.
    """
    if isinstance(model, DirectModel):
        raise UsageError(
            f"{name} is fitted in one go, so there is nothing to start from: train it anew with "
            f"--model {name}"
        )


def strength_for(strength: float, glasses: Sequence[Moments]) -> float:
    """The ridge strength asked for, or for 0 the one that leaving out glasses in turn favours."""
    if strength > 0:
        return strength
    return choose_strength(glasses, STRENGTHS) if len(glasses) > 1 else USUAL_STRENGTH
