from eval.evaluate import EXPERIMENT

raise SystemExit(EXPERIMENT.main())
