"""Checks of arguments, fields and options: what is right comes back, what is wrong is named."""

import argparse
from dataclasses import dataclass
from fractions import Fraction
from math import inf, nan

import numpy as np
import pytest

from fusionreid import options


@pytest.mark.parametrize(
    "value, kind, expected",
    [
        (3, int, 3),
        (np.int64(3), int, 3),
        (3, float, 3.0),
        (0.5, float, 0.5),
        (Fraction(1, 2), float, 0.5),
        ([4, 5], tuple[int, int], (4, 5)),
        (("a",), tuple[str, ...], ("a",)),
        ((), tuple[str, ...], ()),
        (None, str | None, None),
        ("x", str | None, "x"),
        (True, bool, True),
    ],
)
def test_a_value_of_its_kind_comes_back(value, kind, expected):
    found = options.expect("name", value, kind)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    "value, kind, limits, words",
    [
        ("3", int, (), "a whole number"),
        (1.5, int, (), "a whole number"),
        (True, int, (), "a whole number"),
        (0, int, (1,), "a whole number from 1"),
        (5, int, (1, 4), "a whole number from 1 to 4"),
        (nan, float, (0,), "a number from 0"),
        (inf, float, (), "a number"),
        (2, float, (0, 1), "a number from 0 to 1"),
        ("ab", tuple[str, ...], (), "tuple[str, ...]"),
        ((1, "b"), tuple[int, int], (), "tuple[int, int]"),
        (5, str | None, (), "str | None"),
        (1, bool, (), "bool"),
        (True, str | None, (), "str | None"),
    ],
)
def test_a_value_of_another_kind_is_named(value, kind, limits, words):
    with pytest.raises(ValueError) as error:
        options.expect("name", value, kind, *limits)
    assert str(error.value) == f"name={value!r}; expected {words}"


def test_a_long_value_is_named_on_one_short_line():
    with pytest.raises(ValueError) as error:
        options.expect("name", "a\n b" * 100, int)
    assert len(str(error.value)) < 120 and "\n" not in str(error.value)


@dataclass(frozen=True)
class Config:
    count: int = 1
    share: float = 0.5
    units: tuple[str, ...] = ()

    def __post_init__(self):
        options.expect_fields(self, count=(1,), share=(0, 1))


def test_the_fields_of_a_dataclass_are_looked_at():
    assert Config(units=["a"]) == Config(units=("a",))
    assert type(Config(count=np.int32(2)).count) is int
    for half in (np.float32(0.5), Fraction(1, 2)):
        assert type(Config(share=half).share) is float
    assert type(Config(share=1).share) is float, "or two equal configurations look different"
    with pytest.raises(ValueError, match="Config.count=0; expected a whole number from 1"):
        Config(count=0)
    with pytest.raises(ValueError, match="Config.share=1.5; expected a number from 0 to 1"):
        Config(share=1.5)


def test_an_unknown_value_is_named_beside_the_known_ones():
    options.one_of("unit", "seu", ("seu", "mfu"))
    with pytest.raises(ValueError) as error:
        options.one_of("unit", "sue", ("seu", "mfu"))
    assert str(error.value) == "unit='sue' is not known; it is one of: 'seu', 'mfu'"


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "x", "", "11"])
def test_whole_numbers_of_options(text):
    kind = options.whole(1, 10)
    assert (kind("1"), kind("10")) == (1, 10)
    expected = f"expected a whole number from 1 to 10, found {text!r}"
    with pytest.raises(argparse.ArgumentTypeError, match=expected):
        kind(text)


def test_whole_numbers_without_a_highest():
    assert options.whole(0)("1000000") == 1_000_000
    with pytest.raises(argparse.ArgumentTypeError, match="a whole number from 0, found '-1'"):
        options.whole(0)("-1")


def test_devices_of_options():
    assert options.device("cpu") == "cpu"
    for text in ("meta", "bogus", "cuda:77"):
        expected = f"expected a device of this machine, found '{text}'"
        with pytest.raises(argparse.ArgumentTypeError, match=expected):
            options.device(text)


@pytest.mark.parametrize(
    "text, value",
    [
        ("3", 3),
        ("[0, 1]", [0, 1]),
        ("0,1", (0, 1)),
        ("True", True),
        ("msmt17", "msmt17"),
        ("a b", "a b"),
        ("'a'", "a"),
    ],
)
def test_literals_are_read_and_other_text_stays(text, value):
    assert options.literal(text) == value


@pytest.mark.parametrize("text", ["[0,", "(1", "{", "'a"])
def test_half_a_literal_is_an_error(text):
    with pytest.raises(ValueError, match="expected a value as Python writes it, found"):
        options.literal(text)


def test_a_wrong_command_line_is_one_line(capsys):
    parser = options.Parser(prog="tool")
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["--no-such"])
    assert stop.value.code == 2
    line = "tool: unrecognized arguments: --no-such (see tool --help)\n"
    assert capsys.readouterr().err == line
