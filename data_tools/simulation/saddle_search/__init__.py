"""Searches for saddle points by the activation-relaxation technique."""
