"""Searches around many atoms, and barriers from what they found."""
