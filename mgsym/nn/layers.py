"""Building blocks of models: edge encoder, radial basis, cutoff function.

Edge tensors are large (260,000 edges × 32 channels × 4 views are 133 MB), so they are worked
through in pieces that fit a core's cache, and computed again in the backward pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mgsym.nn.edge_passes import Encode, HiddenMoments, compiled_passes
from mgsym.utils.devices import free_memory
from mgsym.utils.processes import batch_count, batch_sum, is_shared, whole_rows

_PIECE_CPU = 1 << 18  # numbers in one piece of an edge tensor: 1 MB, half a core's cache
_PIECE_CUDA = 1 << 27  # 512 MB, or less where there is little memory


def pieces(rows: int, width: int, device: torch.device) -> Iterator[slice]:
    """Runs of rows of an edge tensor of that width that fit the cache; one empty run of none.

    On a GPU they are as large as memory allows: some pieces are worked on at once.
    """
    if device.type == "cpu":
        numbers = _PIECE_CPU * torch.get_num_threads()
    elif rows * width <= _PIECE_CUDA // 32:
        numbers = _PIECE_CUDA
    else:
        numbers = min(_PIECE_CUDA, free_memory(device) // 64)
    step = max(numbers // width, 1)
    for start in range(0, max(rows, 1), step):
        yield slice(start, min(start + step, rows))


class BatchNorm(nn.BatchNorm1d):
    """torch's, whose statistics are those of the whole batch where processes share one."""

    def forward(self, x: Tensor) -> Tensor:
        """[n, width]."""
        if not (self.training and is_shared()):
            return super().forward(x)
        exact, width = x.double(), x.shape[1]
        number = exact.new_tensor([float(len(x))])
        sums = batch_sum(torch.cat([exact.sum(0), exact.square().sum(0), number]))
        rows = max(int(sums[-1]), 1)
        mean = sums[:width] / rows
        variance = (sums[width:-1] / rows - mean.square()).clamp(min=0)
        update_running(self, mean.detach().to(x), variance.detach().to(x), rows)
        found: Tensor = ((exact - mean) * (variance + self.eps).rsqrt()).to(x.dtype)
        return found * self.weight + self.bias


class EdgeEncoder(nn.Module):
    """Linear, batch norm, ReLU, twice: of each edge's input seen under several linear views.

    Batch norm takes its statistics over all edges under all views, and gets them from moments:
    those of the input give the first norm's, those of the hidden layer the second's. Views and
    norms fold into the linear maps, so that only pieces of the hidden tensors ever exist.

    Args:
        inputs: width of an edge's input.
        width: of its encoding.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Linear(inputs, width), BatchNorm(width)
        self.second, self.second_norm = nn.Linear(width, width), BatchNorm(width)

    def forward(self, x: Tensor, views: Tensor, shares: Tensor, average: bool = True) -> Tensor:
        """Encode edges.

        Args:
            x: [e, inputs].
            views: [t, inputs, inputs]; view t of an edge is views[t] @ x.
            shares: [t], the weight of each view; they sum to 1.
            average: over the views.

        Returns:
            [e, width], or [t, e, width] where not averaged.
        """
        with torch.autocast(x.device.type, enabled=False):
            return self._encode(x, views, shares, average)

    def _encode(self, x: Tensor, views: Tensor, shares: Tensor, average: bool) -> Tensor:
        count = batch_count(len(x)) * len(views)
        seen_mean = seen_second = None
        if self.first_norm.training:
            mean, second = _moments(x)
            seen_mean = torch.einsum("t,tij,j->i", shares, views, mean)
            seen_second = torch.einsum("t,tij,jk,tlk->il", shares, views, second, views)
        scale, shift = self._fold(self.first, self.first_norm, seen_mean, seen_second, count)
        first = torch.einsum("wi,tij->tjw", scale, views)
        # the shift is the weight of a further input of 1
        first = torch.cat([first, shift.expand(len(views), 1, -1)], dim=1)
        x = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
        library = None
        if average and not x.requires_grad:
            library = compiled_passes(x, first.shape[2], self.training)
        mean_of_hidden = second_of_hidden = None
        if self.second_norm.training:
            sums = batch_sum(
                _HiddenMoments.apply(x, first, shares)
                if library is None
                else HiddenMoments.apply(library, x, first, shares)
            )
            moments = sums / max(batch_count(len(x)), 1)
            mean_of_hidden, second_of_hidden = moments[0], moments[1:]
        scale, constant = self._fold(
            self.second, self.second_norm, mean_of_hidden, second_of_hidden, count
        )
        encoded: Tensor
        if library is None:
            encoded = _Encode.apply(x, first, scale, constant, shares, average)
        else:
            encoded = Encode.apply(library, x, first, scale, constant, shares)
        return encoded

    def _fold(
        self,
        linear: nn.Linear,
        norm: nn.BatchNorm1d,
        mean: Tensor | None,
        second: Tensor | None,
        count: int,
    ) -> tuple[Tensor, Tensor]:
        """Weight and bias of norm ∘ linear, from the mean and second moment of its input."""
        if norm.training and mean is not None and second is not None:
            out_mean = linear(mean)
            covariance = second - torch.outer(mean, mean)
            weight = linear.weight
            variance = ((weight @ covariance) * weight).sum(1).clamp(min=0)
            update_running(norm, out_mean, variance, count)
        else:
            out_mean, variance = norm.running_mean, norm.running_var  # type: ignore[assignment]
        scale = norm.weight / (variance + norm.eps).sqrt()
        return linear.weight * scale[:, None], (linear.bias - out_mean) * scale + norm.bias


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [i] and second moment [i, i] over rows, summed in float64."""
    exact = x.double()
    count = max(batch_count(len(x)), 1)
    sums = batch_sum(torch.cat([exact.sum(0)[None], exact.T @ exact])) / count
    return sums[0].to(x.dtype), sums[1:].to(x.dtype)


def _hidden(x: Tensor, first: Tensor) -> Tensor:
    """Hidden layer [t, e, w] of inputs x [e, i] under first [t, i, w]."""
    return torch.relu_(torch.matmul(x, first))


class _HiddenMoments(torch.autograd.Function):
    """Sum and sum of outer products of the hidden layer over edges and views, [1 + w, w]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, first: Tensor, shares: Tensor) -> Tensor:
        ctx.save_for_backward(x, first, shares)
        views, _, width = first.shape
        total = x.new_zeros(views, 1 + width, width)
        for rows in pieces(len(x), views * width, x.device):
            hidden = _hidden(x[rows], first)
            total[:, 0] += hidden.sum(1)
            total[:, 1:].baddbmm_(hidden.transpose(1, 2), hidden)
        return torch.einsum("t,tij->ij", shares, total)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None]:
        x, first, shares = ctx.saved_tensors
        symmetric = grad[1:] + grad[1:].T
        back = _Back(x, first, shares, ctx.needs_input_grad[0])
        for rows in pieces(len(x), first[:, 0].numel(), x.device):
            hidden = _hidden(x[rows], first)
            d_hidden = torch.addmm(grad[0], hidden.flatten(0, 1), symmetric)
            back.add(rows, hidden, d_hidden.view_as(hidden))
        return back.d_x, back.d_first, None


class _Encode(torch.autograd.Function):
    """ReLU of second · hidden + constant: [e, w] averaged by shares, or [t, e, w]."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        first: Tensor,
        second: Tensor,
        constant: Tensor,
        shares: Tensor,
        average: bool,
    ) -> Tensor:
        ctx.save_for_backward(x, first, second, constant, shares)
        ctx.average = average
        views, _, width = first.shape
        out = x.new_empty(*(() if average else (views,)), len(x), width)
        for rows in pieces(len(x), views * width, x.device):
            hidden = _hidden(x[rows], first).flatten(0, 1)
            encoded = torch.addmm(constant, hidden, second.T).relu_().view(views, -1)
            if average:
                torch.mv(encoded.T, shares, out=out[rows].view(-1))
            else:
                out[:, rows] = encoded.view(views, -1, width)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, first, second, constant, shares = ctx.saved_tensors
        weights = shares if ctx.average else torch.ones_like(shares)
        back = _Back(x, first, weights, ctx.needs_input_grad[0])
        d_second = second.new_zeros(len(first), *second.shape)
        d_constant = torch.zeros_like(first[:, 0])
        for rows in pieces(len(x), d_constant.numel(), x.device):
            hidden = _hidden(x[rows], first)
            encoded = torch.addmm(constant, hidden.flatten(0, 1), second.T).view_as(hidden)
            above = grad[rows].expand_as(hidden) if ctx.average else grad[:, rows]
            d_encoded = torch.ops.aten.threshold_backward(above, encoded, 0)
            d_constant += d_encoded.sum(1)
            d_second.baddbmm_(d_encoded.transpose(1, 2), hidden)
            back.add(rows, hidden, torch.matmul(d_encoded, second))
        d_second, d_constant = (
            torch.einsum("t,t...->...", weights, d) for d in (d_second, d_constant)
        )
        return back.d_x, back.d_first, d_second, d_constant, None, None


class _Back:
    """From the gradient of the hidden layer, times the views' weights, to x and first."""

    def __init__(self, x: Tensor, first: Tensor, weights: Tensor, need_x: bool) -> None:
        self.x, self.first, self.weights = x, first, weights
        self.sum = torch.zeros_like(first)
        self.d_x = torch.empty_like(x) if need_x else None

    def add(self, rows: slice, hidden: Tensor, d_hidden: Tensor) -> None:
        d_hidden = torch.ops.aten.threshold_backward(d_hidden, hidden, 0)
        self.sum += torch.matmul(self.x[rows].T, d_hidden)
        if self.d_x is not None:
            weighted = self.first * self.weights[:, None, None]
            self.d_x[rows] = torch.einsum("tew,tiw->ei", d_hidden, weighted)

    @property
    def d_first(self) -> Tensor:
        return self.sum * self.weights[:, None, None]


class Dropout(nn.Module):
    """Dropout whose random bytes cost a fifth of torch's random floats on a CPU.

    The probability is rounded to 1/256.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def draw(self, x: Tensor) -> tuple[Tensor | None, float]:
        """1 for entries of x that are kept, else 0 (None: all are), and by what those grow.

        As uint8, which torch multiplies with floats five times as fast as bool.
        """
        dropped = round(self.probability * 256)
        if not self.training or dropped == 0:
            return None, 1.0
        # where processes share a batch, each draws for all of it and takes its own rows
        first, rows = whole_rows(len(x))
        width = x[:1].numel() if len(x) else 1
        own = slice(first * width, first * width + x.numel())
        if x.device.type == "cpu":
            words = torch.empty(rows * width // 8 + 1, dtype=torch.int64).random_(-(2**63), None)
            kept = words.view(torch.uint8)[own].view(x.shape) >= dropped
        else:
            drawn = torch.empty(rows * width, dtype=torch.bool, device=x.device)
            kept = drawn.bernoulli_(1 - dropped / 256)[own].view(x.shape)
        return kept.view(torch.uint8), 256 / (256 - dropped)

    def forward(self, x: Tensor) -> Tensor:
        """x, in training with some of its entries zero and the others scaled up."""
        kept, scale = self.draw(x)
        return x if kept is None else x * kept * scale


def encoder(
    first: nn.Module, width: int, norm: bool = True, activation: type[nn.Module] = nn.ReLU
) -> nn.Sequential:
    """A first layer to [n, width], then a linear one, each normalised over the batch and activated.

    Args:
        first: the first layer.
        width: of what it gives.
        norm: with batch norms.
        activation: after each.
    """
    return nn.Sequential(
        first, *_finish(width, norm, activation), nn.Linear(width, width),
        *_finish(width, norm, activation),
    )  # fmt: skip


def decoder(
    width: int, layers: int, norm: bool = True, activation: type[nn.Module] = nn.PReLU
) -> nn.Sequential:
    """Hidden layers, then one number per atom: [n, width] to [n, 1].

    Args:
        width: of every hidden layer.
        layers: how many there are.
        norm: with batch norms.
        activation: after each.
    """
    hidden = [
        module
        for _ in range(layers)
        for module in (nn.Linear(width, width), *_finish(width, norm, activation))
    ]
    return nn.Sequential(*hidden, nn.Linear(width, 1))


def _finish(width: int, norm: bool, activation: type[nn.Module]) -> list[nn.Module]:
    """What comes after a linear layer."""
    return [BatchNorm(width), activation()] if norm else [activation()]


def update_running(norm: nn.BatchNorm1d, mean: Tensor, variance: Tensor, count: int) -> None:
    """What BatchNorm1d does with a training batch's statistics."""
    if not norm.training:
        return
    unbiased = variance * (count / max(count - 1, 1))
    with torch.no_grad():
        norm.running_mean.lerp_(mean, norm.momentum)  # type: ignore[union-attr,arg-type]
        norm.running_var.lerp_(unbiased, norm.momentum)  # type: ignore[union-attr,arg-type]
        norm.num_batches_tracked.add_(1)  # type: ignore[union-attr]


def radial_basis(length: Tensor, cutoff: float, count: int) -> Tensor:
    """Gaussians at `count` equal steps from 0 to `cutoff`, one step wide.

    Args:
        length: [e], Å.

    Returns:
        [e, count].
    """
    centres = torch.linspace(0, cutoff, count, device=length.device, dtype=length.dtype)
    step = cutoff / max(count - 1, 1)
    return torch.exp(-0.5 * ((length[:, None] - centres) / step) ** 2)


def smooth_cutoff(length: Tensor, cutoff: float) -> Tensor:
    """½ (1 + cos(π r / cutoff)), zero beyond (Behler & Parrinello, PRL 98, 146401, eq. 4)."""
    return 0.5 * (1 + torch.cos(math.pi * (length / cutoff).clamp(max=1)))
