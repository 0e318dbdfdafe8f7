"""Trained at 1 mm alone, asked about finer voxels: what is kept, smoothed, invented?

`heads` draws what is trained on, `train` trains, `blocks` holds volumes whose truth is known
at any voxel size, `score` asks and measures, `report` makes tables and `words` a verdict from rows.
`python -m eval.extrapolation` does it all.
"""
