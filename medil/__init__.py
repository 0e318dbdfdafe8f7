"""MedIL: encode a volume at its native grid, render it on any grid.

Knowledge flows one way: grid -> data -> model -> train -> eval -> notebooks -> book.
"""

__version__ = "0.6.0"
