"""The trained competitors of several experiments: configurations and short training runs."""
