"""Atomic structures: positions, cell and species, and which atoms are neighbours."""

from __future__ import annotations

from mgsym.structure.structure import SPLITS, Column, Structure, index_species

__all__ = ["SPLITS", "Column", "Structure", "index_species"]
