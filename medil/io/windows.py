"""Windows in which radiologists look at CT, by name.

Source: the article "Windowing (CT)" of Radiopaedia gives level and width of each.
"""

from __future__ import annotations

from medil.errors import InputError, shown

LEVEL_AND_WIDTH = {"lung": (-600, 1500), "mediastinum": (50, 350), "bone": (400, 1800)}
CT_WINDOWS = {  # name -> (low, high) in HU
    name: (level - width / 2, level + width / 2) for name, (level, width) in LEVEL_AND_WIDTH.items()
}


def ct_window(name: str) -> tuple[float, float]:
    """The lowest and the highest HU of a window.

    Raises:
        InputError: No such window; the message lists all names.

    Example:
        >>> ct_window("lung")
        (-1350.0, 150.0)
    """
    if name not in CT_WINDOWS:
        raise InputError(
            f"there is no CT window {shown(name)}; "
            f"name one of {', '.join(CT_WINDOWS)}, or two numbers."
        )
    return CT_WINDOWS[name]
