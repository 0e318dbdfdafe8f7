"""Synthetic volumes with known truth: phantoms, anatomies and heads."""
