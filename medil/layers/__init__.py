"""Building blocks of the networks: local bases, linear maps between grids, rendering operators."""
