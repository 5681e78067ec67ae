"""What would break, or change unseen, on a machine with a GPU."""

from __future__ import annotations

from typing import Any

import torch

from mgsym.rotations import Transforms, seeded


def test_transforms_in_evaluation_leave_the_random_state_of_gpus(cuda: Any) -> None:
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
