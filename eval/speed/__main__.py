from eval.speed import EXPERIMENT

raise SystemExit(EXPERIMENT.main())
