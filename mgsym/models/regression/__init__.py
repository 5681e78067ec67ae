"""Regressions on local descriptors, fitted without epochs."""
