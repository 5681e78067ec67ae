"""The emulated device itself: what CUDA takes passes, what CUDA refuses is refused."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

MAKERS: dict[str, Callable[[], Tensor]] = {
    "zeros": lambda: torch.zeros(3, device="cuda"),
    "tensor": lambda: torch.tensor([1.0, 2.0, 3.0], device="cuda"),
    "numpy": lambda: torch.as_tensor(np.ones(3), device="cuda"),
    "cuda()": lambda: torch.ones(3).cuda(),
    "to": lambda: torch.ones(3).to("cuda:0"),
    "arange": lambda: torch.arange(3, device="cuda"),
    "new_tensor": lambda: torch.zeros(3, device="cuda").new_tensor([1.0]),
    "randn": lambda: torch.randn(3, device="cuda"),
    "like": lambda: torch.ones_like(torch.zeros(3, device="cuda")),
    "moved by dtype": lambda: torch.ones(3).to("cuda", torch.float64),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_tensors_are_made_there(cuda: Any, make: Callable[[], Tensor]) -> None:
    made = make()
    assert made.device == torch.device("cuda", 0)
    assert made.is_cuda
    assert type(made.cpu()) is Tensor
    assert made.cpu().device.type == "cpu"


def ints(*shape: int) -> Tensor:
    return torch.ones(*shape, dtype=torch.int64, device="cuda")


# what it says, and what is refused of a (here), b (there), both [4, 3]
REFUSED: dict[str, tuple[str, Callable[[Tensor, Tensor], Any]]] = {
    "sum": ("same device", lambda a, b: a + b),
    "cat": ("same device", lambda a, b: torch.cat([a, b])),
    "product": ("same device", lambda a, b: a @ b.T),
    "index_select": ("same device", lambda a, b: b.index_select(0, torch.tensor([0]))),
    "index_add": ("same device", lambda a, b: b.index_add(0, torch.tensor([0]), b[:1])),
    "stack of numbers": ("same device", lambda a, b: torch.stack([a[0, 0], b[0, 0]])),
    "in place": ("same device", lambda a, b: a.add_(b)),
    "a number here takes one there": ("same device", lambda a, b: a[0, 0].add_(b[0, 0])),
    "out": ("same device", lambda a, b: torch.mul(b, b, out=a)),
    "where": ("same device", lambda a, b: torch.where(a > 0, b, b)),
    "searchsorted": ("same device", lambda a, b: torch.searchsorted(b[:, 0], a[:, 0])),
    "put": ("same device", lambda a, b: b.__setitem__(torch.tensor([0, 1]), a[:2])),
    "indices there": ("indices should be", lambda a, b: a[ints(1)]),
    "mask there": ("indices should be", lambda a, b: a[b[:, 0] > 0]),
    "numpy()": ("can't convert cuda", lambda a, b: b.numpy()),
    "asarray": ("can't convert cuda", lambda a, b: np.asarray(b)),
    "generator": (
        "'cuda' device type for generator",
        lambda a, b: torch.randn(3, device="cuda", generator=torch.Generator()),
    ),
    "integer product": ("not implemented for 'int64'", lambda a, b: ints(2, 2) @ ints(2, 2)),
    "eigh in half": ("half precision", lambda a, b: torch.linalg.eigh(b[:3].bfloat16())),
    "mixed boundaries": ("dtypes differ", lambda a, b: torch.searchsorted(b[:, 0].double(), b)),
    "load": ("map_location", lambda a, b: torch.load(saved(b), weights_only=True)),
    "compile": ("no Triton", lambda a, b: torch.compile(torch.sin)),
}


def saved(x: Tensor) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(x, file)
    file.seek(0)
    return file


@pytest.mark.parametrize(("message", "call"), REFUSED.values(), ids=REFUSED)
def test_what_cuda_refuses(cuda: Any, message: str, call: Callable[[Tensor, Tensor], Any]) -> None:
    with pytest.raises((RuntimeError, TypeError), match=message):
        call(torch.ones(4, 3), torch.ones(4, 3, device="cuda"))


def test_what_cuda_takes(cuda: Any) -> None:
    here, there = torch.ones(4, 3), torch.ones(4, 3, device="cuda")
    assert (there + torch.tensor(1.0)).is_cuda  # a number of the CPU
    assert there[torch.tensor([0, 1])].is_cuda  # indices of the CPU
    assert there[here[:, 0] > 0].is_cuda
    here[1:3] = 5 * there[1:3]  # a copy
    assert here.tolist() == [[1.0] * 3, [5.0] * 3, [5.0] * 3, [1.0] * 3]
    there.view(-1)[4] = 7.0  # a view of the same memory
    assert there[1].tolist() == [1.0, 7.0, 1.0]
    assert (torch.ones(3, device="cuda") @ there.T).shape == (4,)
    assert torch.ones(2, 3, device="cuda").t_().unsqueeze_(0).shape == (1, 3, 2)
    assert torch.linalg.eigh(torch.eye(3, device="cuda")).eigenvalues.is_cuda
    assert torch.equal(torch.load(saved(there), map_location="cpu", weights_only=True), there.cpu())


def test_random_numbers_are_those_of_the_device(cuda: Any) -> None:
    host = torch.get_rng_state()
    with torch.random.fork_rng(devices=[torch.device("cuda", 0)]):
        torch.cuda.manual_seed(3)
        first = torch.randn(2, device="cuda")
        torch.cuda.manual_seed(3)
        assert torch.equal(first, torch.empty(2, device="cuda").normal_())
    assert torch.equal(torch.get_rng_state(), host)
    before = torch.cuda.get_rng_state()
    torch.manual_seed(7)  # seeds GPUs too
    assert not torch.equal(torch.cuda.get_rng_state(), before)


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.PReLU(), nn.Linear(5, 1))


def test_a_network_trains_as_on_the_cpu(cuda: Any) -> None:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
    weights = []
    for device in ("cpu", "cuda"):
        model, given = network().to(device), x.to(device)
        assert len(list(model.parameters())) == 7
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            (model(given) - 1).square().mean().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        twin = copy.deepcopy(model)
        assert all(isinstance(p, nn.Parameter) for p in twin.parameters())
        weights.append([p.detach().cpu() for p in twin.parameters()])
    torch.testing.assert_close(weights[0], weights[1])


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_lower_precision(cuda: Any, precision: torch.dtype) -> None:
    model, scaler = network().to("cuda"), torch.amp.GradScaler("cuda")
    optimizer = torch.optim.Adam(model.parameters())
    with torch.autocast("cuda", precision):
        y = model(torch.ones(4, 3, device="cuda"))
    assert y.dtype == precision
    scaler.scale(y.float().mean()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert all(p.grad is not None and p.grad.is_cuda for p in model.parameters())


def test_launches_and_waits_are_counted(cuda: Any) -> None:
    x = torch.ones(1000, device="cuda")
    cuda.reset()
    y = x * 2 + 1
    y.view(10, 100)
    assert sum(cuda.launches.values()) == 2
    assert not cuda.waits
    assert cuda.bytes["mul"] == 8000
    float(y.sum())
    y[y > 3]
    assert cuda.waits == {"_local_scalar_dense": 1, "index": 1}
    y.cpu()
    assert cuda.waits["copy to host"] == 1


def test_only_what_is_pinned_is_sent_without_waiting(cuda: Any) -> None:
    x = torch.arange(3.0)
    cuda.reset()
    assert x.pin_memory().to("cuda", non_blocking=True).tolist() == [0.0, 1.0, 2.0]
    assert cuda.launches["copy to device"] == 1
    assert cuda.waits == {"copy to host": 1}  # of the list
    for sent in (x, x.pin_memory()):
        cuda.reset()
        sent.to("cuda", non_blocking=sent is x)
        assert cuda.waits == {"copy to device": 1}


def test_afterwards_there_is_no_gpu() -> None:
    import emulated_cuda

    try:
        with emulated_cuda.EmulatedCuda():
            assert torch.cuda.is_available()
            left = torch.ones(2, device="cuda")
    except emulated_cuda.Unavailable as reason:
        pytest.skip(str(reason))
    assert not torch.cuda.is_available()
    with pytest.raises(RuntimeError, match="outlived"):
        left + 1
    weight = torch.ones(2, requires_grad=True)
    weight.sum().backward()
    assert weight.grad is not None
