"""Pages made of every experiment's rows."""
