"""Patches against the whole: what a halo gives back, and what seams and drift are left."""
