"""Glasses under strain: athermal and quasistatic, or at a temperature and a rate."""
