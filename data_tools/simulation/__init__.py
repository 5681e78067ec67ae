"""The physics that makes labels: potential, relaxation, melt and quench, barrier search.

Units are eV, Å, ps, K and amu throughout; stress is in eV/Å³.
"""
