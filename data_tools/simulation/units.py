"""Constants that turn eV, Å, ps, K and amu into one another (CODATA 2018)."""

from __future__ import annotations

BOLTZMANN = 8.617333262e-5  # eV/K
# 1 amu Å²/ps² in eV: mass × velocity² to energy
ENERGY_PER_MASS = 1.03642696e-4  # eV ps²/(amu Å²)
BAR = 1.602176634e6  # bar in 1 eV/Å³
GPA = BAR / 1e4  # GPa in 1 eV/Å³
GRAMS_PER_CM3 = 1.66053907  # 1 amu/Å³ in g/cm³
