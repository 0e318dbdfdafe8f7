from eval.segmentation import EXPERIMENT

raise SystemExit(EXPERIMENT.main())
