"""Graphs of structures: an edge for each pair of atoms within a cutoff."""

from __future__ import annotations

from mgsym.graph.graph import SHORTEST_DISTANCE, Graph, build_graph, collate, match_species

__all__ = ["SHORTEST_DISTANCE", "Graph", "build_graph", "collate", "match_species"]
