from eval.robustness import EXPERIMENT

raise SystemExit(EXPERIMENT.main())
