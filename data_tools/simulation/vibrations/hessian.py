"""Second derivatives of the EAM energy, kept as the factors they are made of.

With r̂ the direction of a bond, f_ij the density that atom j gives at atom i, and F′ held fixed,

    V′ = φ′ + F′ᵢ f′_ij + F′ⱼ f′_ji,    V″ = φ″ + F′ᵢ f″_ij + F′ⱼ f″_ji,
    K_ij = V″ r̂r̂ᵀ + V′/r (1 − r̂r̂ᵀ),

the Hessian is H = P + Gᵀ diag(F″) G, where P has the blocks −K_ij off the diagonal and minus the
sum of its row on it, and G = ∂ρ/∂x (Finnis & Sinclair, Philos. Mag. A 50, 45 (1984), differentiated
twice). P joins atoms up to the cutoff apart, GᵀG up to twice the cutoff, through a common
neighbour. The second derivatives of the splines jump at knots, as those of LAMMPS do.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from mgsym.data_tools.simulation.potentials.bonds import EAMBonds

Mapping = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True, eq=False)
class BlockRows:
    """A matrix of 3×3 blocks, row by row; only blocks that are not zero are kept.

    Attributes:
        begin, length: [n] int64; the blocks of row i are begin[i] … begin[i] + length[i] − 1, and
            their columns ascend. Rows need not lie in order.
        column: [b] int32.
        value: [b, 3, 3] eV/Å².
    """

    begin: Tensor
    length: Tensor
    column: Tensor
    value: Tensor

    def of_rows(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Which of `rows` [r] each of their blocks is in [m], and the blocks' numbers [m]."""
        return _stretches(self.begin[rows], self.length[rows])

    def to(self, dtype: torch.dtype) -> BlockRows:
        """The same matrix with values of another precision."""
        return replace(self, value=self.value.to(dtype))


@dataclass(frozen=True, eq=False)
class Hessian:
    """The Hessian of a periodic system of n atoms, in factors.

    All images of an atom move together, so bonds to several images of one atom are summed and
    bonds of an atom to its own images do not count.

    Attributes:
        atom, neighbor: [e] int64, directed bonds, sorted by atom; each pair occurs once.
        pair: [e, 3, 3] eV/Å², K of the bond.
        gradient: [e, 3] 1/Å (times the density's unit), ∂ρ(atom)/∂x(neighbor).
        curvature: [n], F″ at the atom's density, eV over the density's unit squared.
    """

    atom: Tensor
    neighbor: Tensor
    pair: Tensor
    gradient: Tensor
    curvature: Tensor

    @property
    def num_atoms(self) -> int:
        return len(self.curvature)

    @cached_property
    def _length(self) -> Tensor:
        """[n], how many bonds each atom has."""
        return torch.bincount(self.atom, minlength=self.num_atoms)

    @cached_property
    def _begin(self) -> Tensor:
        return self._length.cumsum(0) - self._length

    @cached_property
    def pair_diagonal(self) -> Tensor:
        """[n, 3, 3] eV/Å², the diagonal blocks of P."""
        return self.pair.new_zeros(self.num_atoms, 3, 3).index_add_(0, self.atom, self.pair)

    @cached_property
    def own_gradient(self) -> Tensor:
        """[n, 3], ∂ρ(atom)/∂x(the same atom)."""
        total = self.gradient.new_zeros(self.num_atoms, 3)
        return total.index_add_(0, self.atom, self.gradient).neg_()

    def product(self, vectors: Tensor) -> Tensor:
        """H times vectors.

        Args:
            vectors: [3n, k] (or [3n]) Å.

        Returns:
            The same shape, eV/Å.
        """
        x = vectors.reshape(self.num_atoms, 3, -1)
        apart = x[self.atom] - x[self.neighbor]
        result = torch.zeros_like(x).index_add_(0, self.atom, self.pair @ apart)
        density = x.new_zeros(self.num_atoms, x.shape[2])
        density.index_add_(0, self.atom, -(self.gradient[:, :, None] * apart).sum(1))
        pull = self.gradient[:, :, None] * (self.curvature[:, None] * density)[self.atom, None]
        result.index_add_(0, self.neighbor, pull).index_add_(0, self.atom, pull, alpha=-1)
        return result.reshape(vectors.shape)

    def diagonal_blocks(self) -> Tensor:
        """[n, 3, 3] eV/Å²: how stiffly each atom is held when it moves alone."""
        outer = self.gradient[:, :, None] * self.gradient[:, None, :]
        outer *= self.curvature[self.atom, None, None]
        own = self.own_gradient[:, :, None] * self.own_gradient[:, None, :]
        blocks = self.pair_diagonal + self.curvature[:, None, None] * own
        return blocks.index_add(0, self.neighbor, outer)

    def rows(self, atoms: Tensor) -> tuple[Tensor, Tensor]:
        """The rows of H that belong to some atoms, against every atom they touch.

        Memory is the number of their neighbours times that of their neighbours' neighbours, so
        few atoms that lie together are cheapest.

        Args:
            atoms: [a] int64, distinct.

        Returns:
            columns: [c] int64, ascending, the atoms touched (`atoms` among them).
            blocks: [a, 3, c, 3] eV/Å².
        """
        row, bond = self._bonds_of(atoms)
        middle = torch.cat([atoms, self.neighbor[bond]]).unique()
        place, far = self._bonds_of(middle)
        columns = torch.cat([middle, self.neighbor[far]]).unique()
        here = torch.searchsorted(columns, atoms)
        # G between the atoms whose density changes and those that change it
        change = self.gradient.new_zeros(len(middle), len(columns), 3)
        change[place, torch.searchsorted(columns, self.neighbor[far])] = self.gradient[far]
        each = torch.arange(len(middle), device=columns.device)
        change[each, torch.searchsorted(columns, middle)] = self.own_gradient[middle]
        left = (change[:, here] * self.curvature[middle, None, None]).flatten(1)
        blocks = (left.T @ change.flatten(1)).view(len(atoms), 3, len(columns), 3)
        bonded = torch.searchsorted(columns, self.neighbor[bond])
        by_block = blocks.transpose(1, 2)
        by_block[row, bonded] -= self.pair[bond]
        by_block[torch.arange(len(atoms), device=here.device), here] += self.pair_diagonal[atoms]
        return columns, blocks

    def block_rows(self, groups: Sequence[Tensor], mapping: Mapping = map) -> BlockRows:
        """Rows of H as blocks; those of atoms in no group stay empty.

        Args:
            groups: atoms [a] that lie together, each atom in one group at most.
            mapping: applies a function to each group in order, as `map` does.
        """
        begin, length = torch.zeros_like(self._begin), torch.zeros_like(self._length)
        column, value = [], []
        size = 0
        for atoms, (counts, columns, values) in zip(
            groups, mapping(self._packed_rows, groups), strict=True
        ):
            begin[atoms] = size + counts.cumsum(0) - counts
            length[atoms] = counts
            column.append(columns)
            value.append(values)
            size += len(columns)
        return BlockRows(begin, length, torch.cat(column), torch.cat(value))

    def _packed_rows(self, atoms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of some atoms the number of blocks that are not zero, their columns and values."""
        columns, blocks = self.rows(atoms)
        blocks = blocks.transpose(1, 2)
        row, kept = (blocks != 0).flatten(2).any(2).nonzero(as_tuple=True)
        counts = torch.bincount(row, minlength=len(atoms))
        return counts, columns[kept].int(), blocks[row, kept]

    def sparse(self) -> Tensor:
        """H as a sparse CSR matrix [3n, 3n], eV/Å²; for analysis of small systems."""
        n = self.num_atoms
        each = torch.arange(n, device=self.atom.device)
        blocks = self.block_rows(each.split(16))
        row, block = blocks.of_rows(each)
        axes = torch.arange(3, device=row.device)
        indices = torch.stack(
            torch.broadcast_tensors(
                3 * row[:, None, None] + axes[:, None],
                3 * blocks.column[block].long()[:, None, None] + axes,
            )
        ).flatten(1)
        values = blocks.value[block].flatten()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse", UserWarning)  # CSR is in beta
            matrix = torch.sparse_coo_tensor(
                indices, values, (3 * n, 3 * n), check_invariants=False
            )
            return matrix.to_sparse_csr()

    def cluster(self, atoms: Tensor) -> Tensor:
        """The Hessian [3m, 3m] eV/Å² of atoms [m] when all others are frozen."""
        columns, blocks = self.rows(atoms)
        return blocks[:, :, torch.searchsorted(columns, atoms)].reshape(
            3 * len(atoms), 3 * len(atoms)
        )

    def _bonds_of(self, atoms: Tensor) -> tuple[Tensor, Tensor]:
        """Which of `atoms` each of their bonds belongs to, and the bonds."""
        return _stretches(self._begin[atoms], self._length[atoms])


def eam_hessian(bonds: EAMBonds) -> Hessian:
    """The analytic Hessian of an EAM energy.

    Args:
        bonds: every bond of the structure with the derivatives of its terms.
    """
    first, second = bonds.effective_slope, bonds.effective_curvature
    along = bonds.direction[:, :, None] * bonds.direction[:, None, :]
    sideways = (first / bonds.length)[:, None, None]
    pair = torch.eye(3).to(along) * sideways + (second[:, None, None] - sideways) * along
    gradient = bonds.density_slope[:, None] * bonds.direction
    others = bonds.atom != bonds.neighbor
    key = (bonds.atom * bonds.num_atoms + bonds.neighbor)[others]
    # bonds are sorted by atom, then neighbour: images of one neighbour follow one another
    kept, where = torch.unique_consecutive(key, return_inverse=True)
    return Hessian(
        kept // bonds.num_atoms,
        kept % bonds.num_atoms,
        pair.new_zeros(len(kept), 3, 3).index_add_(0, where, pair[others]),
        gradient.new_zeros(len(kept), 3).index_add_(0, where, gradient[others]),
        bonds.embedding_curvature,
    )


def _stretches(begin: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """begin[0], begin[0] + 1, …, then those of begin[1]; and whose each one is."""
    owner = torch.repeat_interleave(length)
    shift = begin - (length.cumsum(0) - length)
    return owner, torch.arange(len(owner), device=owner.device) + shift[owner]
