"""Files that are written whole, memory budgets, devices and processes."""
