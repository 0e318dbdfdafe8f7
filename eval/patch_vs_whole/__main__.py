from eval.patch_vs_whole import EXPERIMENT

raise SystemExit(EXPERIMENT.main())
