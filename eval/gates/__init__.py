"""What every rendered page must pass: links, weight, and what a browser and axe-core find.

    python -m eval.gates _build/html

prints one line for each finding and ends with exit code 1 if there is any. `make book` runs it on
what it has built. Where Chromium is missing, it says so and checks what needs none.
"""
