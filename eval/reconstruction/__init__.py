"""Held-out volumes, encoded and rendered on several grids by every arm."""
