"""The types of options of the command line, and a parser that says in one line what is wrong."""

import argparse
import ast
from collections.abc import Callable


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
        raise argparse.ArgumentTypeError(f"expected a device of this machine, found {text!r} ({why})") from error
    return text


def literal(text: str):
    """A literal where it is one (3, [0, 1], True), the text itself otherwise."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
