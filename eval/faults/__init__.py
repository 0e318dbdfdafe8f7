"""Errors that can be dialled up in a volume, and what the metrics make of them."""
