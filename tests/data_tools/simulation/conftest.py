"""A small potential of three elements that no symmetry helps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mgsym.data_tools.simulation.potentials.eam import EAM, tabulated


@pytest.fixture(scope="session")
def toy_eam() -> Callable[..., EAM]:
    """``toy_eam(density_points=4000)``: Al, Cu and Zr with cross densities that differ."""

    def make(density_points: int = 4000) -> EAM:
        spacing, cutoff = 0.002, 4.2
        r = spacing * torch.arange(2101, dtype=torch.float64)
        fade = (1 - (r / cutoff) ** 2).clamp(min=0) ** 4
        # Morse wells, and densities that differ from (a, b) to (b, a)
        depth = torch.tensor([[0.30, 0.35, 0.40], [0.35, 0.45, 0.50], [0.40, 0.50, 0.55]])
        place = torch.tensor([[2.6, 2.55, 2.7], [2.55, 2.5, 2.65], [2.7, 2.65, 2.8]])
        swell = torch.exp(-1.6 * (r - place[:, :, None].double()))
        pair = r * depth[:, :, None].double() * (swell**2 - 2 * swell) * 3 * fade
        height = torch.tensor([[1.0, 0.7, 1.3], [0.9, 1.1, 0.6], [1.4, 0.8, 1.2]])
        density = height[:, :, None].double() * torch.exp(-0.9 * (r - 2.6)) * fade
        rho = 0.01 * torch.arange(density_points, dtype=torch.float64)
        strength = torch.tensor([0.5, 0.7, 0.9]).double()[:, None]
        embedding = strength * (0.02 * rho**2 - (rho + 0.1).sqrt())
        masses = (26.98, 63.55, 91.22)
        return tabulated(
            ("Al", "Cu", "Zr"), masses, cutoff, spacing, 0.01, pair, density, embedding, "toy"
        )

    return make
