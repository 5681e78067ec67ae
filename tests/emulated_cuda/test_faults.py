"""What would break, or change unseen, on a machine with a GPU."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from mgsym.data_tools.simulation.saddle_search.region_groups import slots_for
from mgsym.nn.rotations import Transforms, seeded
from mgsym.training.optimizer import update_average

pytestmark = pytest.mark.cuda


def test_transforms_in_evaluation_leave_the_random_state_of_gpus(gpu: Any) -> None:
    torch.cuda.manual_seed(5)
    before, host = torch.cuda.get_rng_state(), torch.get_rng_state()
    with seeded(3):
        assert not torch.equal(torch.get_rng_state(), host)
    for source in ("haar", "von-mises"):
        drawn = Transforms(source).to("cuda").eval()
        assert drawn()[0].is_cuda
    host = torch.get_rng_state()
    drawn()
    assert torch.equal(torch.cuda.get_rng_state(), before)
    assert torch.equal(torch.get_rng_state(), host)


def test_as_many_slots_as_memory_allows(cuda: Any) -> None:
    for gibibytes, slots in ((70, 1024), (7, 256), (0.5, 64)):
        cuda.memory = int(gibibytes * 2**30)
        assert slots_for("cuda:0") == slots
    assert slots_for("cpu") == 64


def test_averages_take_few_launches(cuda: Any) -> None:
    model = torch.nn.Sequential(*(torch.nn.Linear(3, 3) for _ in range(40))).to("cuda")
    average = copy.deepcopy(model)
    cuda.reset()
    update_average(average, model, 0.9, step=100)
    assert sum(cuda.launches.values()) <= 4
