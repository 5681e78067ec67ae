"""Layers of the networks: sums over edges, EGAT, rotations, spherical harmonics."""
