"""Synthetic volumes whose truth is known: phantoms, anatomies, and whole heads."""
