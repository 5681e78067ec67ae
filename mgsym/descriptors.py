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

from mgsym.environments import expansion, piece_size
from mgsym.graph import Graph
from mgsym.neighborhoods import of_edges


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
        radial: number of radial Gaussians between 1.5 Å and the graph's cutoff, at least 2.
        l_max: highest degree of the spherical harmonics.
        edge_weight: [e]; how much each neighbour counts.

    Returns:
        [n, count_descriptors(…)] float32: species one-hot; densities per species and Gaussian;
        the square root (with sign) of the power spectrum per species pair, Gaussian and
        l = 1 … l_max, divided by the number of m. The root makes it linear in the density.
    """
    width = count_descriptors(len(graph.species), radial, l_max) - len(graph.species)
    pieces = [graph.edge_vector.new_zeros(0, width)]  # of a graph without atoms
    for near in of_edges(graph, edge_weight).pieces(piece_size(graph)):
        if len(near.owner) == 0:  # such as atoms of a part that only send messages
            pieces.append(graph.edge_vector.new_zeros(len(near.nodes), width))
            continue
        c = expansion(graph, near, graph.cutoff, radial, l_max)
        pieces.append(_invariants(c.unflatten(1, (len(graph.species), radial)), l_max))
    own = torch.nn.functional.one_hot(graph.types, len(graph.species)).float()
    return torch.cat([own, torch.cat(pieces)], dim=1)


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
