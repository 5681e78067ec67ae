"""Minimisation of energy or enthalpy."""
