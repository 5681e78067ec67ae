"""The density of what neighbours carry, expanded in radial functions and spherical harmonics.

    G_i[a, b, c] = Σ_j Y_a(r̂_ij) g_b(r_ij) x_j[c]

over the edges that arrive at i. The products Y g are the same for all c, so they are laid out as
one padded matrix per atom and the sum is a matrix product: an edge tensor of their width
(128 numbers an edge) exists for a few atoms at a time only, in the backward pass again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mgsym.graph import Graph
from mgsym.nn.layers import pieces


def neighbor_density(graph: Graph, radial: Tensor, harmonics: Tensor, values: Tensor) -> Tensor:
    """G of every atom.

    Args:
        graph: whose edges are summed.
        radial: [e, b], radial functions of each edge; a weight of the edge multiplies them.
        harmonics: [e, a], angular functions.
        values: [n, c], what the neighbours carry.

    Returns:
        [n, a, b, c]. Gradients flow to `radial`, `harmonics` and `values`, once.
    """
    density: Tensor = _Density.apply(radial, harmonics, values, graph.source, graph.offsets)
    return density.unflatten(1, (harmonics.shape[1], radial.shape[1]))


class _Density(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, radial: Tensor, harmonics: Tensor, values: Tensor, source: Tensor, offsets: Tensor
    ) -> Tensor:
        ctx.save_for_backward(radial, harmonics, values, source, offsets)
        inner = harmonics.shape[1] * radial.shape[1]
        density = values.new_zeros(len(offsets) - 1, inner, values.shape[1])
        for nodes, edges, exists in _padded(offsets, inner):
            rows = _rows(radial, harmonics, edges, exists)
            torch.bmm(rows.transpose(1, 2), values[source[edges]], out=density[nodes])
        return density

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        radial, harmonics, values, source, offsets = ctx.saved_tensors
        shape = (harmonics.shape[1], radial.shape[1])
        d_radial, d_harmonics, d_values = (
            torch.zeros_like(x) if needed else None
            for x, needed in zip((radial, harmonics, values), ctx.needs_input_grad, strict=False)
        )
        for nodes, edges, exists in _padded(offsets, shape[0] * shape[1]):
            senders = source[edges]
            if d_values is not None:
                rows = _rows(radial, harmonics, edges, exists)
                back = torch.bmm(rows, grad[nodes])
                d_values.index_add_(0, senders.flatten(), back.flatten(0, 1))
            if d_radial is None and d_harmonics is None:
                continue
            d_rows = torch.bmm(values[senders], grad[nodes].transpose(1, 2))[exists]
            d_rows, own = d_rows.unflatten(1, shape), edges[exists]
            if d_radial is not None:
                d_radial[own] = torch.einsum("eab,ea->eb", d_rows, harmonics[own])
            if d_harmonics is not None:
                d_harmonics[own] = torch.einsum("eab,eb->ea", d_rows, radial[own])
        return d_radial, d_harmonics, d_values, None, None


def _padded(offsets: Tensor, inner: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Runs of atoms with their edges as a table [atoms, slots], and which slots hold one."""
    counts = offsets.diff()
    edges = int(offsets[-1])
    if edges == 0:
        return
    for nodes in pieces(len(counts), int(counts.max()) * inner, offsets.device):
        slots = torch.arange(int(counts[nodes].max()), device=offsets.device)
        exists = slots < counts[nodes, None]
        yield nodes, (offsets[:-1][nodes, None] + slots).clamp(max=edges - 1), exists


def _rows(radial: Tensor, harmonics: Tensor, edges: Tensor, exists: Tensor) -> Tensor:
    """[atoms, slots, a · b]: products of both, zero in empty slots."""
    of_slot = radial[edges] * exists[:, :, None]
    return (harmonics[edges][:, :, :, None] * of_slot[:, :, None, :]).flatten(2)
