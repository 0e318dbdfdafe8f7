"""Published data sets and released weights: addresses, hashes, licences; one scan to begin with."""
