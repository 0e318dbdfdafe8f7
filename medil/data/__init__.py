"""Published data sets: addresses, hashes, licences, and one scan to begin with."""
