"""Descriptors of an atom's environment, invariant under rotation and reflection.

The density of each species around an atom is expanded in radial functions and real spherical
harmonics, c[s, n, lm] = Σ g_n(r) Y_lm(r̂) over the neighbours of species s. Invariant under
rotation and reflection are

- radial densities, l = 0;
- the power spectrum, Σ_m c[a, lm] c[b, lm] for every pair a, b of channels (s, n), as in SOAP
  (Bartók, Kondor & Csányi, PRB 87, 184115). It stays quadratic in the density; linear models of
  barriers learn much more from it than from its root.

`Environment` finds neighbours out to a cutoff of its own, whatever the graph's edges.
`local_descriptors` takes the graph's edges, so that deleting one changes the descriptors as it
changes the structure; it gives the radial densities and, for networks, the root of the diagonal,
p[s, s', n, l] = Σ_m c[s, n, lm] c[s', n, lm] (Bartók et al., eq. 17; Steinhardt, Nelson &
Ronchetti, PRB 28, 784).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from mgsym.descriptors.neighbor_sums import MOST_RADIAL, CompiledSums
from mgsym.descriptors.neighborhoods import Neighborhoods, neighborhoods, of_edges
from mgsym.graph import Graph
from mgsym.nn.layers import radial_basis, smooth_cutoff
from mgsym.nn.scatter import segment_sum
from mgsym.nn.spherical_harmonics import spherical_harmonics

R_MIN = 1.5  # Å; radial functions that lie lower would see no atom
_PIECE_CPU = 256  # atoms expanded at once: their padded neighbourhoods fit the cache
_PIECE_CUDA = 8192


@dataclass(frozen=True)
class Environment:
    """Which descriptors.

    Attributes:
        cutoff: Å, of the power spectrum.
        radial: Gaussians between 1.5 Å and the cutoff, at least 2.
        l_max: highest degree of the power spectrum.
        wide_cutoff: Å, of radial densities beside them.
        wide_radial: their Gaussians; 0 for none, else at least 2.
    """

    cutoff: float = 5.0
    radial: int = 6
    l_max: int = 6
    wide_cutoff: float = 9.0
    wide_radial: int = 0

    @property
    def reach(self) -> float:
        """Å; nothing farther from an atom changes its descriptors."""
        return max(self.cutoff, self.wide_cutoff if self.wide_radial else 0.0)

    def count(self, species: int) -> int:
        """How many numbers an atom gets."""
        channels = species * self.radial
        pairs = channels * (channels + 1) // 2
        return species * self.wide_radial + pairs * (self.l_max + 1)

    def describe(self, graph: Graph) -> Iterator[tuple[Tensor, Tensor]]:
        """Descriptors, some atoms at a time.

        Args:
            graph: one structure or a batch; positions, cell and types are used, edges are not.

        Yields:
            Atoms [m], and their descriptors [m, count] float32: radial densities, then power
            spectrum.
        """
        for part in neighborhoods(graph, self.reach):
            yield part.nodes, self.of_many(graph, part)

    def of_many(self, graph: Graph, near: Neighborhoods) -> Tensor:
        """As `of_neighbours`, a few atoms at a time or compiled."""
        species = len(graph.species)
        compiled = CompiledSums.of(near, graph.types, species)
        if compiled is None or self.radial > MOST_RADIAL:
            pieces = [near.vector.new_empty(0, self.count(species))]
            for piece in near.pieces(piece_size(graph)):
                pieces.append(self.of_neighbours(graph, piece))
            return torch.cat(pieces)
        result = near.vector.new_empty(len(near.nodes), self.count(species))
        if self.wide_radial:
            compiled.radial_densities(self.wide_cutoff, self.wide_radial, result)
        spectrum = result[:, species * self.wide_radial :]
        compiled.power_spectra(self.cutoff, self.radial, self.l_max, spectrum, rooted=False)
        return result

    def of_neighbours(self, graph: Graph, near: Neighborhoods) -> Tensor:
        """Descriptors [m, count] of the atoms whose neighbours, weighted or not, are `near`.

        Radial densities are linear in the neighbours' weights, the power spectrum quadratic.
        """
        blocks = []
        if self.wide_radial:
            inner = near.closer(self.wide_cutoff)
            blocks.append(radial_densities(graph, inner, self.wide_cutoff, self.wide_radial))
        inner = near.closer(self.cutoff)
        c = expansion(graph, inner, self.cutoff, self.radial, self.l_max)
        blocks.append(power_spectrum(c, self.l_max))
        return torch.cat(blocks, dim=1)


def piece_size(graph: Graph) -> int:
    """How many atoms of a graph to describe at once."""
    return _PIECE_CPU if graph.positions.device.type == "cpu" else _PIECE_CUDA


def radial_densities(graph: Graph, near: Neighborhoods, cutoff: float, radial: int) -> Tensor:
    """Σ g_n(r) over the neighbours of each species, [m, species · radial]."""
    species = len(graph.species)
    row = near.owner * species + graph.types[near.source]
    basis = _radial(near.vector.norm(dim=1), cutoff, radial)
    if near.weight is not None:
        basis = basis * near.weight[:, None]
    return segment_sum(basis, row, len(near.nodes) * species).view(len(near.nodes), -1)


def expansion(graph: Graph, near: Neighborhoods, cutoff: float, radial: int, l_max: int) -> Tensor:
    """The density around atoms, c [m, species · radial, (l_max + 1)²] float32.

    One matrix product per atom: radial functions by neighbours, times neighbours by harmonics.
    """
    length = near.vector.norm(dim=1)
    kind = one_hot(graph.types[near.source], len(graph.species))
    basis = _radial(length, cutoff, radial)
    if near.weight is not None:
        basis = basis * near.weight[:, None]
    left = (kind[:, :, None] * basis[:, None, :]).flatten(1)
    right = spherical_harmonics(near.vector / length[:, None], l_max)
    number = near.number
    slot = torch.arange(len(length), device=length.device)
    slot = slot - (number.cumsum(0) - number)[near.owner]
    shape = (len(near.nodes), max(int(number.max()), 1))
    padded_left = left.new_zeros(*shape, left.shape[1]).index_put((near.owner, slot), left)
    padded_right = right.new_zeros(*shape, right.shape[1]).index_put((near.owner, slot), right)
    return padded_left.transpose(1, 2) @ padded_right


def power_spectrum(c: Tensor, l_max: int) -> Tensor:
    """Σ_m c[a, lm] c[b, lm] · 4π / (2l + 1), for every pair a ≤ b of channels and every l.

    Args:
        c: [m, channels, (l_max + 1)² or more].

    Returns:
        [m, channels (channels + 1) / 2 · (l_max + 1)].
    """
    a, b = torch.triu_indices(c.shape[1], c.shape[1], device=c.device)
    powers = []
    for degree in range(l_max + 1):
        block = c[..., degree**2 : (degree + 1) ** 2]
        power = block @ block.transpose(1, 2) * (4 * math.pi / (2 * degree + 1))
        powers.append(power[:, a, b])
    return torch.cat(powers, dim=1)


def _radial(length: Tensor, cutoff: float, radial: int) -> Tensor:
    """[p, radial], Gaussians that fall to zero at the cutoff."""
    basis = radial_basis(length - R_MIN, cutoff - R_MIN, radial)
    return basis * smooth_cutoff(length, cutoff)[:, None]


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
    species = len(graph.species)
    width = count_descriptors(species, radial, l_max) - species
    own = torch.nn.functional.one_hot(graph.types, species).float()
    whole = of_edges(graph, edge_weight)
    compiled = CompiledSums.of(whole, graph.types, species)
    if compiled is not None and radial <= MOST_RADIAL:
        descriptors = own.new_empty(len(own), species + width)
        descriptors[:, :species] = own
        compiled.power_spectra(graph.cutoff, radial, l_max, descriptors[:, species:], rooted=True)
        return descriptors
    pieces = [graph.edge_vector.new_zeros(0, width)]  # of a graph without atoms
    for near in whole.pieces(piece_size(graph)):
        if len(near.owner) == 0:  # such as atoms of a part that only send messages
            pieces.append(graph.edge_vector.new_zeros(len(near.nodes), width))
            continue
        c = expansion(graph, near, graph.cutoff, radial, l_max)
        pieces.append(_invariants(c.unflatten(1, (species, radial)), l_max))
    return torch.cat([own, torch.cat(pieces)], dim=1)


def _invariants(c: Tensor, l_max: int) -> Tensor:
    """[nodes, …] from c [nodes, species, radial, (l_max + 1)²]."""
    species = c.shape[1]
    invariants = [c[..., 0].flatten(1) * math.sqrt(4 * math.pi)]
    for degree in range(1, l_max + 1):
        block = c[..., degree * degree : (degree + 1) ** 2]
        for s in range(species):
            for t in range(s, species):
                power = (block[:, s] * block[:, t]).sum(-1) * (4 * math.pi / (2 * degree + 1))
                invariants.append(_signed_root(power))
    return torch.cat(invariants, dim=1)


def _signed_root(power: Tensor) -> Tensor:
    """sign(p) √|p|, rounded at zero so that its gradient stays finite."""
    return power / (power.abs() + 1e-4).sqrt()
