"""What would break, or change unseen, on a machine with a GPU."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mgsym.data_tools.simulation.saddle_search.region_groups import slots_for
from mgsym.explanation.methods.masks import probabilities
from mgsym.nn import egat_kernel, layers
from mgsym.nn.egat_inputs import MemoryPool
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


def test_pieces_of_edges_as_large_as_memory_allows(cuda: Any) -> None:
    for gibibytes, count in ((70, 2), (4, 4), (1, 16)):
        cuda.memory = gibibytes * 2**30
        parts = list(layers.pieces(2**23, 32, torch.device("cuda:0")))
        assert len(parts) == count
        assert sum(part.stop - part.start for part in parts) == 2**23
    cuda.memory = 0
    assert len(list(layers.pieces(1000, 32, torch.device("cuda:0")))) == 1


@pytest.mark.parametrize(("gibibytes", "stored"), [(70, True), (0, False)])
def test_activations_are_stored_where_memory_allows(
    cuda: Any, gibibytes: int, stored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    take = MemoryPool.take

    def watched(pool: MemoryPool, numbers: int, *how: Any) -> torch.Tensor:
        taken.append(numbers)
        return take(pool, numbers, *how)

    monkeypatch.setattr(MemoryPool, "take", watched)
    cuda.memory = gibibytes * 2**30
    learnt = SimpleNamespace(edges=torch.ones(10, 4), p=torch.ones(3, 8, device="cuda"))
    given = SimpleNamespace(memory=MemoryPool(), precision=torch.float32)
    found = egat_kernel._memory_for(learnt, given)
    assert (found is not None, taken) == (stored, [80] * stored)


def test_a_mask_keeps_to_its_budget_without_a_word_to_the_host(cuda: Any) -> None:
    logits = 4 * torch.randn(3, 200, generator=torch.Generator().manual_seed(0))
    there = logits.to("cuda")
    cuda.reset()
    kept = probabilities(there, 30.0)
    assert not cuda.waits
    torch.testing.assert_close(kept.sum(1).cpu(), torch.full((3,), 30.0))
    for row, alone in zip(kept.cpu(), logits, strict=True):
        torch.testing.assert_close(row, probabilities(alone, 30.0))


def test_averages_take_few_launches(cuda: Any) -> None:
    model = torch.nn.Sequential(*(torch.nn.Linear(3, 3) for _ in range(40))).to("cuda")
    average = copy.deepcopy(model)
    cuda.reset()
    update_average(average, model, 0.9, step=100)
    assert sum(cuda.launches.values()) <= 4
