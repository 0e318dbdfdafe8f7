from eval.ablation import EXPERIMENT

raise SystemExit(EXPERIMENT.main())
