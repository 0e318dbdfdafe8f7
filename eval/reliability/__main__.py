from eval.reliability import EXPERIMENT

raise SystemExit(EXPERIMENT.main())
