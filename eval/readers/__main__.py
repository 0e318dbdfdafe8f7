from eval.readers import EXPERIMENT

raise SystemExit(EXPERIMENT.main())
