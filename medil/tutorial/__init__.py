"""Small experiments that the first pages run."""
