"""Tables that a reader can filter and sort, inside the page: no other host is asked."""

from __future__ import annotations

import pandas as pd

from medil.errors import needs

CSS = """
.dt-container { font-size: 0.85rem; }
.dt-container tfoot input { width: 100%; min-width: 4rem; font-size: 0.75rem; }
.dt-container th { white-space: normal; vertical-align: bottom; }
"""


def prepare_tables():
    """The library behind `filterable`; show it once on a page, before the first table.

    Raises:
        InputError: itables is not installed.
    """
    with needs("book", "filterable tables need itables"):
        from itables import options
        from itables.javascript import generate_init_offline_itables_html
    from IPython.display import HTML

    return HTML(generate_init_offline_itables_html(options.dt_bundle))


def filterable(table: pd.DataFrame, caption: str, name: str):
    """A table with a filter below each column, a search box and pages.

    HTML, with a plain table where scripts are off. All of the table goes into the page but
    columns without a value; `name` is unique there.
    """
    from IPython.display import HTML
    from itables import to_html_datatable

    html = to_html_datatable(
        table.dropna(axis=1, how="all"),
        caption=caption,
        table_id=f"table-{name}",
        connected=False,
        maxBytes=0,
        showIndex=False,
        column_filters="footer",
        classes="display compact",
        pageLength=10,
        display_logo_when_loading=False,
        css=CSS,
    )
    return HTML(f'<div style="overflow-x: auto">{html}</div>')
