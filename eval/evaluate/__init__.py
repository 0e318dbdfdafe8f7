"""`medil evaluate`: your own scans measured, recorded, and made into a small book."""
