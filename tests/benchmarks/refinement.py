"""What freezing atoms far from a saddle adds to its barrier, and what extrapolation leaves.

    OMP_NUM_THREADS=1 MGSYM_POTENTIAL=Cu-Zr_2.eam.fs \
        python tests/benchmarks/refinement.py train0.pickle --atoms 12 --searches 4

Every saddle is refined at each radius in turn and at last with all atoms free.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from mgsym.data_tools.formats import read
from mgsym.data_tools.simulation.potentials.files import load_potential
from mgsym.data_tools.simulation.saddle_search.artn import active_radius, barriers_by_radius
from mgsym.data_tools.simulation.saddle_search.events import Search
from mgsym.data_tools.simulation.saddle_search.settings import ArtnSettings

RADII = (12.0, 14.0, 18.0, 22.0, 1e3)
PAIRS = ((10.0, 14.0), (12.0, 14.0), (14.0, 18.0))
EXPONENTS = (2.5, 3.0, 3.5, 4.0)


def main() -> None:
    """Print means and standard deviations over saddles."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("file", type=Path)
    options.add_argument("--atoms", type=int, default=12)
    options.add_argument("--searches", type=int, default=4)
    asked = options.parse_args()
    structure, settings = read(asked.file), ArtnSettings(refine_radii=RADII)
    generator = torch.Generator().manual_seed(2)
    atoms = torch.randperm(len(structure), generator=generator)[: asked.atoms].tolist()
    searches = (Search(atom, n) for n in range(asked.searches) for atom in atoms)
    found = np.array(list(barriers_by_radius(structure, load_potential(), searches, settings)))
    radii = np.array([active_radius(structure, 0.0), *RADII])
    excess = found - found[:, -1:]
    print(f"{len(found)} saddles; barrier less that with all atoms free, eV")
    for radius, column in zip(radii[:-1], excess.T, strict=False):
        print(f"{radius:5.0f} Å  {column.mean():8.4f} ± {column.std():.4f}")
    for near, far in PAIRS:
        first, second = (found[:, np.flatnonzero(radii == r)[0]] for r in (near, far))
        for exponent in EXPONENTS:
            beyond = (first - second) / ((far / near) ** exponent - 1)
            rest = second - beyond - found[:, -1]
            print(
                f"{near:.0f} and {far:.0f} Å, exponent {exponent}: "
                f"{rest.mean():8.4f} ± {rest.std():.4f}"
            )


if __name__ == "__main__":
    main()
