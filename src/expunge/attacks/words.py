"""Settings that are several numbers: text such as '0.5 1', because a spec separates settings by commas."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt
from pydantic import AfterValidator

Count = Annotated[int, Gt(0)]


def numbers(text: str) -> tuple[float, ...]:
    """The numbers of a text, separated by white space.

    >>> numbers("0.7 1")
    (0.7, 1.0)
    """
    return tuple(float(part) for part in text.split())


def _checked(text: str) -> str:
    if not numbers(text):
        raise ValueError("give at least one number")
    return text


Numbers = Annotated[str, AfterValidator(_checked)]
"""Several numbers in one setting."""


def rate_of(text: str, base: float) -> float:
    """A learning rate: a number, or a factor of another.

    >>> rate_of("2x", 1e-5), rate_of("3e-5", 1.0)
    (2e-05, 3e-05)
    """
    return float(text[:-1]) * base if text.endswith("x") else float(text)


def _checked_rates(text: str) -> str:
    if not text.split() or not all(rate_of(part, 1.0) > 0 for part in text.split()):
        raise ValueError("give at least one learning rate above 0, such as 1e-5 or 3x")
    return text


Rates = Annotated[str, AfterValidator(_checked_rates)]
"""Several learning rates in one setting."""
