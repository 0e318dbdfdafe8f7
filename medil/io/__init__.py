"""What image files say: NIfTI, MGH and NRRD, their affines, and intensities."""
