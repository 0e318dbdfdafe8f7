from eval.machines import EXPERIMENT

raise SystemExit(EXPERIMENT.main())
