"""Embedded-atom potentials: files, analytic ones, energies, forces and stresses."""
