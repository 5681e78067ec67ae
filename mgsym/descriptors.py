"""Rotation-invariant descriptors of an atom's surroundings.

The density of each species around an atom is expanded in radial Gaussians and real spherical
harmonics, c[s, n, lm] = Σ w g_n(r) Y_lm(r̂); its rotation-invariant parts are the radial densities
(l = 0) and the power spectrum p[s, s', n, l] = Σ_m c[s, n, lm] c[s', n, lm]
(Bartók, Kondor & Csányi, PRB 87, 184115, eq. 17; Steinhardt, Nelson & Ronchetti, PRB 28, 784).
Everything is computed from the graph's edges, so that deleting an edge changes the descriptors
as it changes the structure.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mgsym.graph import Graph
from mgsym.layers import radial_basis, smooth_cutoff

_PIECE = 512  # nodes expanded at once: their padded neighbourhoods fit the cache


def spherical_harmonics(direction: Tensor, l_max: int) -> Tensor:
    """Real spherical harmonics, orthonormal on the sphere.

    Associated Legendre functions times cos mφ and sin mφ, both by recursion in the Cartesian
    components, without angles (as in Sloan, JCGT 2(2), 2013).

    Args:
        direction: [e, 3] unit vectors.
        l_max: highest degree.

    Returns:
        [e, (l_max + 1)²], ordered l = 0 … l_max, m = −l … l.
    """
    x, y, z = direction.unbind(-1)
    cosine, sine = [torch.ones_like(x)], [torch.zeros_like(x)]  # ρᵐ cos mφ, ρᵐ sin mφ
    for m in range(1, l_max + 1):
        cosine.append(x * cosine[m - 1] - y * sine[m - 1])
        sine.append(x * sine[m - 1] + y * cosine[m - 1])
    columns: list[Tensor] = [x] * (l_max + 1) ** 2
    for m in range(l_max + 1):
        for degree, legendre in _legendre(z, m, l_max):
            norm = math.sqrt(
                (2 * degree + 1) / (4 * math.pi)
                * math.factorial(degree - m) / math.factorial(degree + m)
                * (1 if m == 0 else 2)
            )  # fmt: skip
            centre = degree * degree + degree
            columns[centre + m] = norm * legendre * cosine[m]
            if m > 0:
                columns[centre - m] = norm * legendre * sine[m]
    return torch.stack(columns, dim=-1)


def _legendre(z: Tensor, m: int, l_max: int) -> list[tuple[int, Tensor]]:
    """(l, P_l^m(z) / ρᵐ) for l = m … l_max, where ρ = √(1 − z²)."""
    double_factorial = math.prod(range(1, 2 * m, 2))
    found = [(m, torch.full_like(z, float(double_factorial)))]
    if l_max > m:
        found.append((m + 1, (2 * m + 1) * z * found[0][1]))
    for degree in range(m + 2, l_max + 1):
        before, last = found[-2][1], found[-1][1]
        value = ((2 * degree - 1) * z * last - (degree + m - 1) * before) / (degree - m)
        found.append((degree, value))
    return found


def count_descriptors(species: int, radial: int, l_max: int) -> int:
    """How many numbers `local_descriptors` gives per atom."""
    pairs = species * (species + 1) // 2
    return species + species * radial + pairs * radial * l_max


def local_descriptors(
    graph: Graph, radial: int, l_max: int, edge_weight: Tensor | None = None
) -> Tensor:
    """Own species, radial densities and power spectrum of every atom.

    Args:
        graph: one structure or a batch.
        radial: number of radial Gaussians between 0 and the graph's cutoff, at least 2.
        l_max: highest degree of the spherical harmonics.
        edge_weight: [e]; how much each neighbour counts.

    Returns:
        [n, count_descriptors(…)] float32: species one-hot; densities per species and Gaussian;
        the square root (with sign) of the power spectrum per species pair, Gaussian and
        l = 1 … l_max, divided by the number of m. The root makes it linear in the density.
    """
    pieces = []
    for start in range(0, graph.num_nodes, _PIECE):
        nodes = slice(start, min(start + _PIECE, graph.num_nodes))
        pieces.append(_invariants(_expansion(graph, nodes, radial, l_max, edge_weight), l_max))
    own = torch.nn.functional.one_hot(graph.types, len(graph.species)).float()
    return torch.cat([own, torch.cat(pieces)], dim=1)


def _expansion(
    graph: Graph, nodes: slice, radial: int, l_max: int, edge_weight: Tensor | None
) -> Tensor:
    """c of some nodes, [nodes, species, radial, (l_max + 1)²]: one matrix product per atom."""
    first, last = graph.offsets[nodes.start], graph.offsets[nodes.stop]
    edges = slice(int(first), int(last))
    vector, length = graph.edge_vector[edges], graph.edge_length[edges]
    # the lowest Gaussians would lie where no atom ever is
    basis = radial_basis(length - 1.5, graph.cutoff - 1.5, radial)
    basis = basis * smooth_cutoff(length, graph.cutoff)[:, None]
    if edge_weight is not None:
        basis = basis * edge_weight[edges, None]
    kind = torch.nn.functional.one_hot(graph.types[graph.source[edges]], len(graph.species))
    left = (kind[:, :, None] * basis[:, None, :]).flatten(1)
    harmonics = spherical_harmonics(vector / length[:, None], l_max)
    owner = graph.destination[edges] - nodes.start
    slot = torch.arange(len(owner), device=owner.device) - (graph.offsets[nodes][owner] - first)
    shape = (nodes.stop - nodes.start, int(slot.max()) + 1 if len(slot) else 1)
    padded_left = left.new_zeros(*shape, left.shape[1]).index_put((owner, slot), left)
    padded_right = harmonics.new_zeros(*shape, harmonics.shape[1]).index_put(
        (owner, slot), harmonics
    )
    product = padded_left.transpose(1, 2) @ padded_right
    return product.unflatten(1, (len(graph.species), radial))


def _invariants(c: Tensor, l_max: int) -> Tensor:
    """[nodes, …] from c [nodes, species, radial, (l_max + 1)²]."""
    species = c.shape[1]
    found = [c[..., 0].flatten(1) * math.sqrt(4 * math.pi)]
    for degree in range(1, l_max + 1):
        block = c[..., degree * degree : (degree + 1) ** 2]
        for s in range(species):
            for t in range(s, species):
                power = (block[:, s] * block[:, t]).sum(-1) * (4 * math.pi / (2 * degree + 1))
                found.append(_signed_root(power))
    return torch.cat(found, dim=1)


def _signed_root(power: Tensor) -> Tensor:
    """sign(p) √|p|, rounded at zero so that its gradient stays finite."""
    return power / (power.abs() + 1e-4).sqrt()
