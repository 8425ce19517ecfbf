"""YAML is read safely, as YAML 1.2 has it, with the line of every entry and duplicate keys as errors."""

from __future__ import annotations

import math
import pathlib
from typing import Any

import pytest

from wsl_sweep.spec.yaml_lines import Path, read_scalar, read_yaml

from .helpers import text_of


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2", 2),
        ("-3", -3),
        ("+3", 3),
        ("2.0", 2.0),
        ("1e-3", 0.001),
        ("1E5", 100_000.0),
        ("2.5e+1", 25.0),
        (".5", 0.5),
        ("-.5", -0.5),
        ("1.", 1.0),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("exp", "exp"),
        ("'2'", "2"),
        ('"1e3"', "1e3"),
        ("[1, 2.5, exp]", [1, 2.5, "exp"]),
        ("{kind: exp}", {"kind": "exp"}),
    ],
)
def test_a_scalar_has_the_type_of_yaml_1_2(text: str, value: Any) -> None:
    read = read_scalar(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("word", ["no", "No", "yes", "on", "off", "y", "n"])
def test_yes_and_no_are_words(word: str) -> None:
    assert read_scalar(word) == word


@pytest.mark.parametrize("text", ["12:30", "2020-01-01", "1_000", "0x10", "NaN", "1e", "1.2.3"])
def test_what_only_looks_like_a_number_or_a_date_is_text(text: str) -> None:
    assert read_scalar(text) == text


def test_nan_is_a_number() -> None:
    assert math.isnan(read_scalar(".nan"))


@pytest.mark.parametrize(("text", "value"), [("010", 10), ("08", 8)])
def test_a_leading_zero_does_not_make_a_number_octal(text: str, value: int) -> None:
    assert read_scalar(text) == value


@pytest.mark.parametrize("text", ["[1, ", "{a: 1", "a: b: c", "@home", "*nobody"])
def test_a_value_that_is_no_yaml_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not valid YAML"):
        read_scalar(text)


def test_every_key_and_item_has_its_line() -> None:
    document = read_yaml(
        text_of(
            """
            name: alpha
            # a comment

            run:
              distillation:
                temperature: 4
                weighting: {kind: exp,
                            of: ratio}
            variants:
              - kd
              - hot: {distillation.temperature: 8}
            """
        )
    )
    expected: dict[Path, int] = {
        (): 1,
        ("name",): 1,
        ("run",): 4,
        ("run", "distillation"): 5,
        ("run", "distillation", "temperature"): 6,
        ("run", "distillation", "weighting"): 7,
        ("run", "distillation", "weighting", "kind"): 7,
        ("run", "distillation", "weighting", "of"): 8,
        ("variants",): 9,
        ("variants", 0): 10,
        ("variants", 1): 11,
        ("variants", 1, "hot"): 11,
        ("variants", 1, "hot", "distillation.temperature"): 11,
    }
    assert document.lines == expected
    assert not document.problems


def test_what_is_not_in_the_file_has_the_line_of_its_nearest_ancestor() -> None:
    document = read_yaml("name: alpha\nrun:\n  seed: 3\n")
    assert document.line(("run", "seed")) == 3
    assert document.line(("run", "optimizer", "lr")) == 2
    assert document.line(("search",)) == 1


def test_windows_line_ends_count_once() -> None:
    document = read_yaml("name: alpha\r\nrun:\r\n  seed: 3\r\n")
    assert document.line(("run", "seed")) == 3


def test_a_key_that_is_used_twice_is_reported_with_both_lines_and_the_first_one_stays() -> None:
    document = read_yaml("run:\n  seed: 1\n  precision: auto\n  seed: 2\n")
    assert document.value == {"run": {"seed": 1, "precision": "auto"}}
    (problem,) = document.problems
    assert (problem.line, problem.path) == (4, "run.seed")
    assert "used twice, first in line 2" in problem.what


def test_all_duplicates_are_reported() -> None:
    document = read_yaml("a: 1\na: 2\nb: {c: 1, c: 2}\na: 3\n")
    assert [(problem.line, problem.path) for problem in document.problems] == [(2, "a"), (3, "b.c"), (4, "a")]


def test_a_variant_that_is_named_twice_is_called_a_variant() -> None:
    (problem,) = read_yaml("variants:\n  kd: {}\n  kd: {}\n").problems
    assert problem.line == 3
    assert 'the variant name "kd"' in problem.what


def test_a_merge_key_takes_over_what_the_section_does_not_say_itself_before_or_after() -> None:
    document = read_yaml("a: &a {x: 1, y: 2, z: 3}\nb:\n  x: 4\n  <<: *a\n  y: 5\n")
    assert document.value["b"] == {"x": 4, "y": 5, "z": 3}
    assert not document.problems


def test_of_several_merged_sections_the_first_one_wins() -> None:
    document = read_yaml("a: &a {x: 1}\nb: &b {x: 2, y: 3}\nc: {<<: [*a, *b]}\n")
    assert document.value["c"] == {"x": 1, "y": 3}


def test_a_key_that_stands_before_a_merge_key_keeps_its_line() -> None:
    document = read_yaml("a: &a {x: 1}\nb:\n  x: 2\n  <<: *a\n")
    assert document.line(("b", "x")) == 3


def test_a_syntax_error_has_its_line() -> None:
    (problem,) = read_yaml("name: alpha\nrun:\n  seed: [1, 2\nspace: {}\n").problems
    assert problem.line == 4
    assert problem.what.startswith("not valid YAML")


def test_two_documents_in_one_file_are_refused() -> None:
    (problem,) = read_yaml("name: a\n---\nname: b\n").problems
    assert "expected a single document" in problem.what


@pytest.mark.parametrize("tag", ["apply:os.mkdir", "new:os.mkdir"])
def test_a_tag_calls_nothing(tag: str, tmp_path: pathlib.Path) -> None:
    made = tmp_path / "made"
    document = read_yaml(f"name: !!python/object/{tag} [{made}]\n")
    assert not made.exists()
    assert document.problems or document.value == {"name": [str(made)]}


@pytest.mark.parametrize("tag", ["!!python/name:os.system", "!!python/module:os", "!secret"])
def test_a_tag_on_a_scalar_is_refused(tag: str) -> None:
    document = read_yaml(f"name: alpha\ndescription: {tag} x\n")
    (problem,) = document.problems
    assert problem.line == 2
    assert "not valid YAML: could not determine a constructor" in problem.what


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(
            ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
            + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 6)]
        ),
        "a: &a [*a]",
        "a: " + "[" * 2_000 + "]" * 2_000,
    ],
    ids=["aliases that grow tenfold a line", "an alias that holds itself", "very deep"],
)
def test_a_file_that_would_not_fit_is_an_error_and_not_an_endless_wait(text: str) -> None:
    (problem,) = read_yaml(text).problems
    assert problem.what.startswith("not valid YAML")
