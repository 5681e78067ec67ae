"""Molecular dynamics: melting and quenching glasses."""
