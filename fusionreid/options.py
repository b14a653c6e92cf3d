"""What arguments and options may be; what is wrong with another is said in one line."""

import argparse
import ast
from collections.abc import Callable
from dataclasses import fields
from inspect import formatannotation
from math import inf
from numbers import Integral, Real
from typing import get_args, get_origin

_NUMBERS = {int: (Integral, "a whole number"), float: (Real, "a number")}


def one_of(name: str, value, known) -> None:
    """Raises ValueError, naming the argument and the known values, unless `value` is one of them."""
    if value not in list(known):
        raise ValueError(
            f"{name}={value!r} is not known; it is one of: {', '.join(map(repr, known))}"
        )


def expect(name: str, value, kind, low: float = -inf, high: float = inf):
    """The value, of a type like int, tuple[int, int], str | None or a class; a number is finite, from `low` to `high`.

    Else a ValueError names the argument, what was found and what is expected. A list becomes a tuple.
    """
    wanted, words = _NUMBERS.get(kind, (kind, formatannotation(kind)))
    if get_origin(kind) is tuple:
        value = tuple(value) if isinstance(value, list) else value
        right = isinstance(value, tuple) and all(
            isinstance(each, get_args(kind)[0]) for each in value
        )
    else:
        right = isinstance(value, wanted) and isinstance(value, bool) == (kind is bool)
    if not right or kind in _NUMBERS and not (low <= value <= high and abs(value) < inf):
        words += f" from {low}" * (low > -inf) + f" to {high}" * (high < inf)
        raise ValueError(f"{name}={' '.join(repr(value).split())[:80]}; expected {words}")
    return int(value) if kind is int else value


def expect_fields(config, **ranges: tuple[float, ...]) -> None:
    """`expect` of each field of a dataclass, which gets it, by its annotation; ranges of numbers are by name."""
    for each in fields(config):
        name, value = f"{type(config).__name__}.{each.name}", getattr(config, each.name)
        object.__setattr__(
            config, each.name, expect(name, value, each.type, *ranges.get(each.name, ()))
        )


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """The type of an option that is a whole number from `least` to `most`."""
    expected = f"expected a whole number from {least}" + (f" to {most}" if most else "")

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least or (most and int(text) > most):
            raise argparse.ArgumentTypeError(f"{expected}, found {text!r}")
        return int(text)

    return parse


def device(text: str) -> str:
    """The type of an option that is a device of this machine."""
    import torch

    try:
        torch.ones(1, device=text).item()  # "meta" has no numbers
    except (RuntimeError, AssertionError) as error:  # the latter from a build of torch without CUDA
        why = str(error).strip().split("\n")[0]
        raise argparse.ArgumentTypeError(
            f"expected a device of this machine, found {text!r} ({why})"
        ) from error
    return text


def literal(text: str):
    """A literal where it is one (3, [0, 1], True), the text itself otherwise; ValueError for the beginning of one."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError) as error:
        if text.startswith(("[", "(", "{", "'", '"')):
            raise ValueError(f"expected a value as Python writes it, found {text!r}") from error
        return text
