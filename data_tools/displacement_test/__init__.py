"""Displace the atoms that an explanation names, and see whether the barrier changes."""
