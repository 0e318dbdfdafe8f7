from eval.fuzz import EXPERIMENT

raise SystemExit(EXPERIMENT.main())
