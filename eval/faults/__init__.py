"""Faults of adjustable strength in a volume, and how the metrics respond to them."""
