"""Checks of arguments, of fields and of options: an error says in one line what was expected."""

import argparse
import ast
from collections.abc import Callable, Iterable
from dataclasses import fields
from inspect import formatannotation
from math import inf
from numbers import Integral, Real
from typing import Literal, get_args, get_origin

_NUMBERS = {int: (Integral, "a whole number"), float: (Real, "a number")}


def one_of(name: str, value, known: Iterable) -> None:
    """Raises ValueError, naming the argument and the known values, if `value` is none of them."""
    known = list(known)
    if value not in known:
        raise ValueError(
            f"{name}={value!r} is not known; it is one of: {', '.join(map(repr, known))}"
        )


def expect(name: str, value, kind, low: float = -inf, high: float = inf):
    """Returns `value` if it is of this kind: int, tuple[int, int], str | None, Literal, a class ...

    A number must be finite, and from `low` to `high`. A list becomes a tuple where one is expected.
    Raises ValueError, naming the argument, what was found and what was expected.
    """
    if get_origin(kind) is Literal:
        one_of(name, value, get_args(kind))
        return value
    words = formatannotation(kind)
    if kind in _NUMBERS:
        number, words = _NUMBERS[kind]
        fits = isinstance(value, number) and low <= value <= high and abs(value) < inf
        if low > -inf:
            words += f" from {low}"
        if high < inf:
            words += f" to {high}"
    elif get_origin(kind) is tuple:
        member = get_args(kind)[0]
        value = tuple(value) if isinstance(value, list) else value
        fits = isinstance(value, tuple) and all(isinstance(part, member) for part in value)
    else:
        fits = isinstance(value, kind)
    # For Python True is a whole number, too.
    if not fits or isinstance(value, bool) and kind is not bool:
        found = " ".join(repr(value).split())[:80]
        raise ValueError(f"{name}={found}; expected {words}")
    return kind(value) if kind in _NUMBERS else value  # 1 and 1.0 are one configuration


def expect_fields(config, **ranges: tuple[float, ...]) -> None:
    """Applies `expect` to each field of a frozen dataclass, by its annotation.

    A number is from 0, unless `ranges` has another (low,) or (low, high) by the name of the field.
    """
    for field in fields(config):
        name = f"{type(config).__name__}.{field.name}"
        value = getattr(config, field.name)
        value = expect(name, value, field.type, *ranges.get(field.name, (0,)))
        object.__setattr__(config, field.name, value)


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def whole(least: int, most: float = inf) -> Callable[[str], int]:
    """The type of an option that is a whole number from `least` to `most`."""

    def parse(text: str) -> int:
        if text.isdecimal() and least <= int(text) <= most:
            return int(text)
        expected = f"expected a whole number from {least}"
        if most < inf:
            expected += f" to {most}"
        raise argparse.ArgumentTypeError(f"{expected}, found {text!r}")

    return parse


def device(text: str) -> str:
    """The type of an option that is a device of this machine."""
    import torch

    try:
        chosen = torch.device(text)
        # Nothing is tried on a GPU that exists: it may allow one process, and that is a worker.
        if chosen.type == "cuda" and (chosen.index or 0) < torch.cuda.device_count():
            return text
        torch.ones(1, device=chosen).item()  # reads it back: a tensor on "meta" has no numbers
    except (RuntimeError, AssertionError) as error:  # the latter from a build of torch without CUDA
        reason = str(error).strip().split("\n")[0]
        raise argparse.ArgumentTypeError(
            f"expected a device of this machine, found {text!r} ({reason})"
        ) from error
    return text


def literal(text: str):
    """The value if the text is a Python literal, such as 3, [0, 1] or True; else the text itself.

    Raises ValueError for a text that only begins like a literal.
    """
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError) as error:
        if text.startswith(("[", "(", "{", "'", '"')):
            raise ValueError(f"expected a value as Python writes it, found {text!r}") from error
        return text
