"""Image files: NIfTI, MGH and NRRD, their affines and intensities."""
