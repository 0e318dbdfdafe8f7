from eval.stage_drift import EXPERIMENT

raise SystemExit(EXPERIMENT.main())
