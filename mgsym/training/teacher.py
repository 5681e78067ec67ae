"""A teacher: a regression fitted first, whose predictions a network learns before the labels.

Distillation (Hinton, Vinyals & Dean, arXiv 1503.02531) with a teacher that is fitted in seconds.
Its predictions carry next to none of the labels' noise, and atoms without a label have one too.
The network learns s · loss(prediction, teacher) + (1 − s) · loss(prediction, label), and the share
s falls, to zero unless told otherwise, so that labels have the last word. Its inputs and what it
computes stay as they are.

The teacher is fitted on the structures that train the network and sees no others, so a fold of a
benchmark tells it nothing of the glass left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from mgsym.graph import Graph
from mgsym.models import create_model
from mgsym.models.base import BarrierModel, device_of
from mgsym.models.regression.base import DirectModel
from mgsym.training.config import ModelConfig, TrainingConfig
from mgsym.utils.progress import Progress

TAUGHT = "prediction of the teacher"  # a node feature, eV


def teacher_share(config: TrainingConfig, step: int, total: int) -> float:
    """Compute how much the teacher counts at a step counted from 0, out of `total`."""
    if not config.teacher:
        return 0.0
    falling = config.teacher_until * total
    high = 0.5 * (1 + math.cos(math.pi * step / falling)) if step < falling else 0.0
    return high * config.teacher_share + (1 - high) * config.teacher_last_share


def with_teacher(
    graphs: Sequence[Graph], name: str, model: BarrierModel, progress: Progress | None = None
) -> list[Graph]:
    """Fit a teacher, and give its predictions to the graphs as the node feature ``TAUGHT``.

    Args:
        graphs: the training structures, on the model's device and matched to its species.
        name: of the teacher in the registry; it has its default options, and so takes whatever
            physical inputs the graphs have.
        model: that learns from it.
        progress: as for `DirectModel.fit`.

    Raises:
        InputError: as for `DirectModel.fit`.
    """
    config = ModelConfig(name).for_graphs(graphs)
    with torch.random.fork_rng(devices=[]):
        teacher = create_model(name, model.species, model.cutoff, config.options)
    assert isinstance(teacher, DirectModel)
    teacher.to(device_of(model)).eval()
    ready = [teacher.prepare(graph) for graph in graphs]
    teacher.fit(ready, progress)
    with torch.no_grad():
        predicted = [teacher(graph).float() for graph in ready]
    return [
        graph.replace(
            node_features={**graph.node_features, TAUGHT: values}, prepared=graph.prepared
        )
        for graph, values in zip(graphs, predicted, strict=True)
    ]
