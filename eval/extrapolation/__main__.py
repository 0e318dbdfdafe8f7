from eval.extrapolation import EXPERIMENT

raise SystemExit(EXPERIMENT.main())
