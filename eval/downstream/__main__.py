from eval.downstream import EXPERIMENT

raise SystemExit(EXPERIMENT.main())
