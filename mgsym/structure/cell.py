"""Do the geometry of a periodic cell: fractional coordinates, wrapping, nearest images, heights.

A cell is [3, 3], its rows the cell vectors in Å; `periodic` says of each whether the structure
repeats along it, as three bools or a tensor [3].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Periodic = Sequence[bool] | Tensor
NEARER = 1e-9  # Å; images that differ by less are as near as one another


def fractional(place: Tensor, cell: Tensor) -> Tensor:
    """Express places in units of the cell vectors: f with f · cell = place.

    Args:
        place: [n, 3] Å.
        cell: [3, 3], or one for each place [n, 3, 3].

    Returns:
        [n, 3].
    """
    if cell.dim() == 2:
        return torch.linalg.solve(cell, place, left=False)
    return torch.linalg.solve(cell, place[:, None], left=False).squeeze(1)


def wrap_fraction(fraction: Tensor, periodic: Periodic) -> Tensor:
    """Move fractional coordinates [n, 3] to 0 ≤ f < 1 along the directions that repeat.

    `periodic` may also be one for each, [n, 3].
    """
    inside = fraction - fraction.floor()
    inside = torch.where(inside < 1, inside, 0.0)  # −1e-17 is rounded up to 1
    return torch.where(_repeats(periodic, fraction), inside, fraction)


def wrap(place: Tensor, cell: Tensor, periodic: Periodic) -> Tensor:
    """Move places into the cell along the directions that repeat.

    Args:
        place: [n, 3] Å, from the cell's corner.
        cell, periodic: one, or one for each place ([n, 3, 3], [n, 3]).

    Returns:
        [n, 3] Å.
    """
    inside = wrap_fraction(fractional(place, cell), periodic)
    return inside @ cell if cell.dim() == 2 else (inside[:, None] @ cell).squeeze(1)


def central_image(vector: Tensor, cell: Tensor, periodic: Periodic) -> Tensor:
    """Find the image of each vector that is at most half a cell vector off along each of them.

    It is the nearest one where cell vectors stand at right angles, and takes less than
    `nearest_image`.

    Args:
        vector: [n, 3] Å.
    """
    steps = fractional(vector, cell).round() * _repeats(periodic, vector)
    return vector - steps @ cell


def nearest_image(vector: Tensor, cell: Tensor, periodic: Periodic) -> Tensor:
    """Find the shortest periodic image of each vector, in a cell of any shape.

    Args:
        vector: [n, 3] Å.
        cell: [3, 3].

    Returns:
        [n, 3] Å.
    """
    best = central_image(vector, cell, periodic)
    if len(best) == 0:
        return best
    length = best.norm(dim=1)
    # whatever is shorter is less than `length` off along the normal of each face
    most = (length.max() / heights(cell) + 0.5).floor() * _repeats(periodic, vector)
    counts = (torch.arange(-int(m), int(m) + 1) for m in most.tolist())
    first = best
    for shift in torch.cartesian_prod(*counts).to(cell) @ cell:
        image = first + shift
        distance = image.norm(dim=1)
        nearer = distance < length - NEARER
        best = torch.where(nearer[:, None], image, best)
        length = torch.where(nearer, distance, length)
    return best


def heights(cell: Tensor) -> Tensor:
    """Measure how far apart opposite faces of a cell are, [3] Å."""
    return 1 / torch.linalg.inv(cell).norm(dim=0)


def _repeats(periodic: Periodic, like: Tensor) -> Tensor:
    return torch.as_tensor(periodic, dtype=torch.bool, device=like.device)
