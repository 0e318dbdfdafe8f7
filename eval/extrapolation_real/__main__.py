from eval.extrapolation_real import EXPERIMENT

raise SystemExit(EXPERIMENT.main())
