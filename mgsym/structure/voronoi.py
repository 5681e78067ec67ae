"""Voronoi polyhedra of atoms: how many faces, of how many edges, and how large.

The index ⟨n3, n4, n5, n6⟩ counts faces with so many edges; ⟨0, 0, 12, 0⟩ is an icosahedron (Finney,
Proc. R. Soc. A 319, 479 (1970)). Faces below 1 % of a polyhedron's surface come and go with the
slightest motion and are left out. It needs scipy, which comes with the extra ``ase``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mgsym.errors import InputError, missing_extra
from mgsym.structure.periodic_images import periodic_images

SMALLEST = 0.01  # of a polyhedron's surface: smaller faces do not count
REACH, FARTHEST = 8.0, 64.0  # Å, first and last distance at which images are taken in


@dataclass(frozen=True, eq=False)
class Polyhedra:
    """The Voronoi polyhedron of each atom; NaN of an atom at a surface, whose is open.

    Attributes:
        coordination: [n] float64, faces.
        index: [n, 4] float64, faces with three, four, five and six edges.
        volume: [n] float64, Å³.
    """

    coordination: Tensor
    index: Tensor
    volume: Tensor

    @property
    def fivefold(self) -> Tensor:
        """[n] float64, the share of faces with five edges: local fivefold symmetry."""
        return self.index[:, 2] / self.coordination

    @property
    def icosahedral(self) -> Tensor:
        """[n] float64, 1 of a full icosahedron ⟨0, 0, 12, 0⟩, else 0."""
        full = (self.index == self.index.new_tensor([0, 0, 12, 0])).all(1)
        full = (full & (self.coordination == 12)).double()
        return torch.where(self.coordination.isnan(), torch.nan, full)


def voronoi_polyhedra(
    positions: Tensor, cell: Tensor, periodic: tuple[bool, bool, bool]
) -> Polyhedra:
    """Find the Voronoi polyhedron of each atom.

    Args:
        positions: [n, 3] Å.
        cell: [3, 3] Å, rows are the cell vectors.
        periodic: whether the cell repeats along each of its vectors.

    Raises:
        UsageError: scipy is missing.
        InputError: the atoms do not fill space, being too few or in one plane.
    """
    try:
        from scipy.spatial import QhullError, Voronoi
    except ImportError as error:
        raise missing_extra("scipy", "ase", "finding Voronoi polyhedra") from error
    positions, reach = positions.double().cpu(), REACH
    while True:
        images = periodic_images(positions, cell.double().cpu().numpy(), periodic, reach)
        try:
            diagram = Voronoi(images.place.T.numpy())
        except (QhullError, ValueError) as error:
            raise InputError(
                f"{len(positions)} atoms have no Voronoi polyhedra: they do not fill space"
            ) from error
        owner = np.full(images.place.shape[1], -1)
        owner[images.home.numpy()] = np.arange(len(positions))
        faces = _faces(diagram, owner)
        # an atom beyond the images could cut a corner that lies so far away
        far = float(np.nanmax(faces.corner, initial=0.0))
        if 2 * far <= reach or reach >= FARTHEST or not any(periodic):
            return _polyhedra(faces, len(positions))
        reach *= 2


@dataclass(frozen=True, eq=False)
class _Faces:
    """Faces of the atoms' polyhedra, each from the side of one atom; NaN where a face is open."""

    atom: np.ndarray
    edges: np.ndarray
    area: np.ndarray  # Å²
    distance: np.ndarray  # Å, to the neighbour behind
    corner: np.ndarray  # Å, to the farthest corner


def _faces(diagram: object, owner: np.ndarray) -> _Faces:
    """The faces of those polyhedra that are an atom's own, not those of an image."""
    points, corners = diagram.points, diagram.vertices  # type: ignore[attr-defined]
    ends, rings = diagram.ridge_points, diagram.ridge_vertices  # type: ignore[attr-defined]
    length = np.array([len(ring) for ring in rings])
    parts = []
    for number in np.unique(length):
        rows = (length == number).nonzero()[0]
        rows = rows[(owner[ends[rows]] >= 0).any(1)]
        ring = np.array([rings[row] for row in rows], dtype=int).reshape(len(rows), number)
        place = np.where((ring < 0)[:, :, None], np.nan, corners[ring])  # [faces, corners, 3]
        spokes = place - place[:, :1]
        area = np.linalg.norm(np.cross(spokes[:, 1:-1], spokes[:, 2:]).sum(1), axis=1) / 2
        apart = np.linalg.norm(points[ends[rows, 0]] - points[ends[rows, 1]], axis=1)
        for side in (0, 1):
            atom = owner[ends[rows, side]]
            away = np.linalg.norm(place - points[ends[rows, side]][:, None], axis=2).max(1)
            kept = atom >= 0
            edges = np.full(len(rows), number)
            parts.append([a[kept] for a in (atom, edges, area, apart, away)])
    return _Faces(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _polyhedra(faces: _Faces, count: int) -> Polyhedra:
    """Faces counted atom by atom."""
    surface = np.bincount(faces.atom, faces.area, count)
    volume = np.bincount(faces.atom, faces.area * faces.distance / 6, count)
    closed = ~np.isnan(surface) & (surface > 0)
    counted = closed[faces.atom] & (faces.area >= SMALLEST * surface[faces.atom])
    index = np.zeros((count, 4))
    for place, edges in enumerate((3, 4, 5, 6)):
        index[:, place] = np.bincount(faces.atom[counted & (faces.edges == edges)], minlength=count)
    coordination = np.bincount(faces.atom[counted], minlength=count).astype(float)
    for values in (index, coordination, volume):
        values[~closed] = np.nan
    return Polyhedra(*(torch.from_numpy(v) for v in (coordination, index, volume)))
