"""What tables and sentences call the arms, and the settings they share."""

from __future__ import annotations

from eval.arms.catalogue import LEARNED

NAMES = {  # in the order in which tables and verdict name them
    "integrated": "LTE",
    "trilinear": "trilinear",
    "subpixel": "sub-pixel",
    "conv-1mm": "conv AE (1 mm)",
    "conv-1.33mm": "conv AE (1.33 mm)",
    "resizing": "resizing AE",
    "integrated-j5": "LTE, five functions an axis",
    "literal": "literal LTE",
    "literal-both": "literal LTE at both ends",
    "literal-skip": "LTE with a skip",
    "literal-skip-both": "LTE with a skip at both ends",
    "trilinear-both": "trilinear at both ends",
    "integrated-content": "LTE, content-dependent frequencies",
    "fixed-mlp": "LTE, fixed frequencies and MLP",
    "liif": "LIIF",
    "cubic": "averaged, then cubic",
    "dct_cube": "DCT, lowest cube",
    "dct_ball": "DCT, lowest ball",
    "bspline": "B-spline, least squares",
    "bspline_neighbours": "B-spline, decoder sees neighbours",
    "lapped": "lapped cosine",
    "dct_best": "DCT, largest (oracle)",
}


def base_of(arm: str) -> str:
    """An arm without its stage of training and its shortcut setting."""
    return arm.partition(" @")[0].removesuffix(LEARNED)


def name_of(arm: str) -> str:
    """An arm's name for people: its own where `NAMES` has no other.

    Example:
        >>> name_of("integrated/learned"), name_of("integrated @both+mix")
        ('LTE, all learned', 'LTE, stages: both + mix')
    """
    base, _, stage = arm.partition(" @")
    sizeless, bracket, size = base.partition(" (")
    plain = sizeless.removesuffix(LEARNED)
    text = NAMES.get(plain, plain) + ", all learned" * (plain != sizeless) + bracket + size
    staged = {"stage1": "1 only", "both": "both", "both+mix": "both + mix",
              "both+groups": "both, LTE in the second alone"}  # fmt: skip
    return f"{text}, stages: {staged.get(stage, stage)}" if stage else text


def shortcut_of(learned: bool) -> str:
    """``with the shortcut``, or without."""
    return "without the shortcut" if learned else "with the shortcut"
