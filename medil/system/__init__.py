"""What a run of any program needs: files that appear whole, memory budgets, devices, processes."""
