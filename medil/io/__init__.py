"""Image files: NIfTI, MGH, NRRD and DICOM, their affines and intensities."""
