"""Training curves as recorded rows."""
