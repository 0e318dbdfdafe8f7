"""How good sampled heads are: against held-out ones, against what was asked, against copies."""
