"""Building blocks of models: edge encoder, radial basis, cutoff function.

Edge tensors are large (260,000 edges × 32 channels × 4 views are 133 MB), so they are worked
through in pieces that fit a core's cache, and computed again in the backward pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

_PIECE_CPU = 1 << 18  # numbers in one piece of an edge tensor: 1 MB, half a core's cache
_PIECE_CUDA = 1 << 27


def pieces(rows: int, width: int, device: torch.device) -> Iterator[slice]:
    """Runs of rows of an edge tensor of that width that fit the cache; one empty run of none."""
    cpu = device.type == "cpu"
    numbers = _PIECE_CPU * torch.get_num_threads() if cpu else _PIECE_CUDA
    step = max(numbers // width, 1)
    for start in range(0, max(rows, 1), step):
        yield slice(start, min(start + step, rows))


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
        self.first, self.first_norm = nn.Linear(inputs, width), nn.BatchNorm1d(width)
        self.second, self.second_norm = nn.Linear(width, width), nn.BatchNorm1d(width)

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
        count = len(x) * len(views)
        mean, second = _moments(x)
        seen_mean = torch.einsum("t,tij,j->i", shares, views, mean)
        seen_second = torch.einsum("t,tij,jk,tlk->il", shares, views, second, views)
        scale, shift = self._fold(self.first, self.first_norm, seen_mean, seen_second, count)
        first = torch.einsum("wi,tij->twj", scale, views)
        scale, constant = self._second(x, first, shift, shares)
        encoded = [
            checkpoint(
                _encode, x[rows], first, shift, scale, constant, shares if average else None,
                use_reentrant=False, preserve_rng_state=False,
            )
            for rows in pieces(len(x), len(views) * len(shift), x.device)
        ]  # fmt: skip
        return torch.cat(encoded, dim=-2)

    def _second(
        self, x: Tensor, first: Tensor, shift: Tensor, shares: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The second linear map with its norm folded in."""
        if not self.training:
            return self._fold(self.second, self.second_norm, None, None, 0)
        total = x.new_zeros(1 + len(shift), len(shift))
        for rows in pieces(len(x), len(first) * len(shift), x.device):
            total = total + checkpoint(
                _hidden_moments, x[rows], first, shift, shares,
                use_reentrant=False, preserve_rng_state=False,
            )  # fmt: skip
        moments = total / max(len(x), 1)
        return self._fold(
            self.second, self.second_norm, moments[0], moments[1:], len(x) * len(first)
        )

    def _fold(
        self,
        linear: nn.Linear,
        norm: nn.BatchNorm1d,
        mean: Tensor | None,
        second: Tensor | None,
        count: int,
    ) -> tuple[Tensor, Tensor]:
        """Weight and bias of norm ∘ linear, from the mean and second moment of its input."""
        if self.training and mean is not None and second is not None:
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
    count = max(len(x), 1)
    return (exact.sum(0) / count).to(x.dtype), (exact.T @ exact / count).to(x.dtype)


def _hidden(x: Tensor, first: Tensor, shift: Tensor) -> Tensor:
    """[t, e, width]"""
    return torch.relu_(torch.matmul(x, first.transpose(1, 2)).add_(shift))


def _hidden_moments(x: Tensor, first: Tensor, shift: Tensor, shares: Tensor) -> Tensor:
    """Sum and sum of outer products of the hidden layer over edges and views, [1 + w, w]."""
    hidden = _hidden(x, first, shift)
    moments = torch.cat([hidden.sum(1, keepdim=True), hidden.transpose(1, 2) @ hidden], dim=1)
    return torch.einsum("t,tij->ij", shares, moments)


def _encode(
    x: Tensor, first: Tensor, shift: Tensor, second: Tensor, constant: Tensor, shares: Tensor | None
) -> Tensor:
    """[e, w] averaged by shares, or [t, e, w]."""
    hidden = _hidden(x, first, shift)
    encoded = torch.relu_(torch.matmul(hidden, second.T).add_(constant))
    if shares is None:
        return encoded
    return (shares @ encoded.flatten(1)).view_as(encoded[0])


class Dropout(nn.Module):
    """Dropout whose random bytes cost a fifth of torch's random floats on a CPU.

    The probability is rounded to 1/256.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def draw(self, x: Tensor) -> tuple[Tensor | None, float]:
        """Which entries of x are kept (None: all), and what to multiply those with."""
        dropped = round(self.probability * 256)
        if not self.training or dropped == 0:
            return None, 1.0
        if x.device.type == "cpu":
            words = torch.empty(x.numel() // 8 + 1, dtype=torch.int64).random_(-(2**63), None)
            kept = words.view(torch.uint8)[: x.numel()].view(x.shape) >= dropped
        else:
            kept = torch.empty_like(x, dtype=torch.bool).bernoulli_(1 - dropped / 256)
        return kept, 256 / (256 - dropped)

    def forward(self, x: Tensor) -> Tensor:
        """x, in training with some of its entries zero and the others scaled up."""
        kept, scale = self.draw(x)
        return x if kept is None else torch.where(kept, x * scale, 0.0)


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
