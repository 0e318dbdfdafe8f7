"""What rendering costs, in time and memory, and what binds it."""
