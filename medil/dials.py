"""Settings: fields of nested frozen dataclasses, read from JSON or text, changed by dotted name.

A setting is named by its place, such as `model.latent_spacing_mm`. Values are checked against the
type of the field, so that a typing error is refused instead of training something else.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from medil.checksums import parsed
from medil.errors import InputError, shown

C = TypeVar("C")
SETTING = re.compile(r"\s*([A-Za-z_][\w.]*)\s*=(.*)", re.DOTALL)
WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def build(kind: type[C], values: Mapping[str, Any], where: str = "") -> C:
    """A dataclass from JSON values; fields that are left out keep their defaults.

    Args:
        kind: The dataclass; its fields are numbers, text, booleans, tuples or dataclasses.
        values: Field to value; values may be text, which is parsed.
        where: Dotted name of the dataclass with a last dot, for errors.

    Raises:
        InputError: An unknown or missing field, or a value of another type.
    """
    if not isinstance(values, Mapping):
        name = where[:-1] or "a configuration"
        raise InputError(f"{name} holds named fields, not {shown(values)}.")
    hints = get_type_hints(kind)
    for name in values:
        if name not in hints:
            raise unknown(where + name, [where + known for known in hints])
    fields = {k: convert(where + k, v, hints[k]) for k, v in values.items()}
    missing = [f.name for f in dataclasses.fields(kind) if f.name not in fields and _required(f)]  # type: ignore[arg-type]
    if missing:
        raise InputError(f"{where}{missing[0]} is missing.")
    return kind(**fields)


def _required(field: dataclasses.Field[Any]) -> bool:
    unset = dataclasses.MISSING
    return field.default is unset and field.default_factory is unset


def convert(name: str, value: Any, hint: Any) -> Any:
    """Convert a value, or its text, to the type of its field.

    Raises:
        InputError: The value is of another type.

    Example:
        >>> convert("sides", "32, 40", tuple[float, ...]), convert("bf16", "no", bool)
        ((32.0, 40.0), False)
    """
    if get_origin(hint) is types.UnionType:  # a dataclass that may be absent
        if value in (None, "none"):
            return None
        (hint,) = (kind for kind in get_args(hint) if kind is not type(None))
    if dataclasses.is_dataclass(hint):
        return build(hint, value, f"{name}.")  # type: ignore[arg-type]
    if get_origin(hint) is tuple:
        return _tuple(name, value, get_args(hint))
    try:
        return _scalar(value, hint)
    except (KeyError, ValueError) as error:
        kinds = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
        raise InputError(f"{name} is {kinds[hint]}, not {shown(value)}.") from error


def _scalar(value: Any, kind: type) -> Any:
    """A number keeps its own type where JSON holds one, so that files stay byte-equal."""
    if isinstance(value, str) and kind is not str:
        value = WORDS[value.strip().lower()] if kind is bool else kind(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and is_number and math.isfinite(value):
        return value
    if type(value) is not kind or kind is float:
        raise ValueError(value)
    return value


def _tuple(name: str, value: Any, kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    items = value.strip("[]() ,").split(",") if isinstance(value, str) else value
    if not isinstance(items, Sequence):
        items = [items]
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(items)
    if len(items) != len(kinds):
        raise InputError(f"{name} holds {len(kinds)} values, not {len(items)}.")
    trimmed = [v.strip() if isinstance(v, str) else v for v in items]
    return tuple(convert(name, v, kind) for v, kind in zip(trimmed, kinds, strict=True))


# Changes by name


def flat(values: Any, where: str = "") -> dict[str, Any]:
    """Dotted name to value, for a dataclass or nested dictionaries.

    Example:
        >>> flat({"model": {"hidden": 3}, "heads": 4})
        {'model.hidden': 3, 'heads': 4}
    """
    if dataclasses.is_dataclass(values):
        values = {f.name: getattr(values, f.name) for f in dataclasses.fields(values)}
    named: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, dict) or dataclasses.is_dataclass(value)
        named |= flat(value, f"{where}{name}.") if nested else {where + name: value}
    return named


def changed(config: C, changes: Mapping[str, Any]) -> C:
    """A copy of a configuration with some settings changed, all at once.

    Args:
        config: A dataclass.
        changes: Dotted name to value, or to its text.

    Raises:
        InputError: An unknown name (the sentence says the nearest one), a value of another
            type, or a combination that the configuration refuses.
    """
    raw, known = dataclasses.asdict(config), flat(config)  # type: ignore[call-overload]
    absent = tuple(f"{name}." for name, value in known.items() if value is None)
    for name, value in changes.items():
        removed = value in (None, "none") and any(k.startswith(f"{name}.") for k in known)
        if not (removed or name in known or name.startswith(absent)):
            raise unknown(name, known)
        *groups, last = name.split(".")
        place = raw
        for group in groups:
            place[group] = place = place[group] or {}  # an absent group begins with its defaults
        place[last] = None if removed else value
    return build(type(config), raw)


def unknown(name: str, known: Iterable[str]) -> InputError:
    """The error for an unknown setting; it names the nearest known one."""
    known, last = list(known), name.rpartition(".")[2]
    alike = [k for k in known if k.rpartition(".")[2] == last]
    nearest = alike or difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return InputError(f"there is no setting {shown(name)}; the nearest one is {nearest[0]!r}.")


def read_settings(texts: Iterable[str], example: str = "train.batch=4") -> dict[str, str]:
    """Dotted name to the text of its value, from `name=value` texts.

    Raises:
        InputError: A text without `name=value`, or a repeated name.

    Example:
        >>> read_settings(["model.latent_spacing_mm=3", "train.patch_sides_mm=24,32"])
        {'model.latent_spacing_mm': '3', 'train.patch_sides_mm': '24,32'}
    """
    named: dict[str, str] = {}
    for text in texts:
        parts = SETTING.fullmatch(text)
        if not parts:
            raise InputError(f"{shown(text)} is not of the form name=value, such as {example}.")
        if parts[1] in named:
            raise InputError(f"{shown(parts[1])} is set twice; set it once.")
        named[parts[1]] = parts[2].strip()
    return named


def read_file(path: Path) -> dict[str, Any]:
    """Nested names and values of a JSON file.

    Raises:
        InputError: The file is missing or holds no JSON object.
    """
    try:
        values = parsed(Path(path).read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path} could not be read: {error.strerror}.") from error
    except ValueError as error:
        raise InputError(f"{path} is not a JSON file: {error}.") from error
    if not isinstance(values, dict):
        raise InputError(f'{path} holds no JSON object such as {{"train": {{"batch": 4}}}}.')
    return values
