from eval.training import EXPERIMENT

raise SystemExit(EXPERIMENT.main())
