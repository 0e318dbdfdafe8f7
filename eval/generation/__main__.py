from eval.generation import EXPERIMENT

raise SystemExit(EXPERIMENT.main())
