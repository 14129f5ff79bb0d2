"""Options of an index kind as users write them: known names, numbers in range."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vectorlake.errors import InvalidInputError
from vectorlake.schema import did_you_mean, listing


def check_known(kind: str, options: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse options that a kind does not have.

    Raises:
        InvalidInputError: names the first, what was probably meant, and those that there are.
    """
    names = sorted(known)
    for option in options:
        if option not in names:
            has = f"its options are {listing(names)}" if names else "it has none"
            raise InvalidInputError(
                f"an index of kind {kind!r} has no option {option!r}{did_you_mean(option, names)}; {has}"
            )


def whole_number(options: Mapping[str, Any], name: str, *, least: int, most: int | None = None) -> int | None:
    """An option that is an integer in [least, most]; None if it was not given.

    Raises:
        InvalidInputError: it is something else.
    """
    value = options.get(name)
    if value is None:
        return None
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or value < least
        or (most is not None and value > most)
    ):
        limits = f"at least {least}" if most is None else f"from {least} to {most}"
        raise InvalidInputError(f"{name} must be an integer {limits}, not {value!r}")
    return value


def fraction(options: Mapping[str, Any], name: str) -> float | None:
    """An option that is a number above 0 and at most 1; None if it was not given.

    Raises:
        InvalidInputError: it is something else.
    """
    value = options.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise InvalidInputError(f"{name} must be a number above 0 and at most 1, not {value!r}")
    return float(value)
