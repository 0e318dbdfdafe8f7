"""Sphinx extension: a bar in a docstring is a bar, not the start of a substitution."""

import re


def escape_bars(app, what, name, obj, options, lines: list[str]) -> None:
    """Escape the bars of `|delta|` and the like outside literals and examples."""
    for number, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            parts = re.split(r"(`[^`]*`)", line)
            lines[number] = "".join(p if p[:1] == "`" else p.replace("|", r"\|") for p in parts)


def setup(app) -> dict:
    """Run before napoleon turns Google sections into fields."""
    app.connect("autodoc-process-docstring", escape_bars, priority=400)
    return {"parallel_read_safe": True}
