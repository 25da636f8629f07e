"""Our compact numpydoc reaches Griffe as descriptions, with types from the signature."""

from pathlib import Path

import griffe
import pytest

from docs.tools.compact_docstrings import CompactNumpydoc, written_out

MODULE = '''"""A module."""

LOW, HIGH = 1.5, 3
"""Bounds, in hours."""


def scan(u: Tensor, delta: Tensor, *, backend: str = "auto") -> tuple[Tensor, Tensor, Tensor]:
    """Run it.

    Parameters
    ----------
    u, delta : (batch, 2 * channels, length)
        Both in one dtype.
    backend : which code computes; "auto" takes
        the fastest

    Returns
    -------
    y : (batch, length) of `u`
    state, other : as they were

    Raises
    ------
    ValueError : a shape is wrong

    Source: somebody, section 3.
    """


def count(rows: int) -> int:
    """Count.

    Returns
    -------
    How many there are; none: nothing
    was found.
    """
'''


@pytest.fixture
def module(tmp_path: Path) -> griffe.Module:
    (tmp_path / "shop.py").write_text(MODULE)
    extensions = griffe.load_extensions(CompactNumpydoc)
    loaded = griffe.load(
        "shop", search_paths=[str(tmp_path)], extensions=extensions, docstring_parser="numpy"
    )
    assert isinstance(loaded, griffe.Module)
    return loaded


def section(module: griffe.Module, name: str, kind: str) -> list[griffe.DocstringNamedElement]:
    docstring = module[name].docstring
    return next(part.value for part in docstring.parsed if part.kind.value == kind)


def test_descriptions_are_no_types(module: griffe.Module) -> None:
    u, delta, backend = section(module, "scan", "parameters")
    assert (u.name, str(u.annotation)) == ("u", "Tensor")
    assert u.description == "`(batch, 2 * channels, length)`.\nBoth in one dtype."
    assert (delta.name, delta.description) == ("delta", u.description)
    assert backend.description == 'which code computes; "auto" takes\nthe fastest'
    assert backend.default == "'auto'"


def test_results_by_name_have_the_signatures_types(module: griffe.Module) -> None:
    y, state, other = section(module, "scan", "returns")
    assert (y.name, y.description) == ("y", "`(batch, length)` of `u`")
    assert str(y.annotation) == "Tensor"
    assert (state.name, state.description, other.name) == ("state", "as they were", "other")


def test_a_result_in_prose_is_one_description(module: griffe.Module) -> None:
    (result,) = section(module, "count", "returns")
    assert result.description == "How many there are; none: nothing\nwas found."
    assert (result.name, str(result.annotation)) == ("", "int")


def test_errors_and_sources_are_told(module: griffe.Module) -> None:
    (error,) = section(module, "scan", "raises")
    assert (str(error.annotation), error.description) == ("ValueError", "a shape is wrong")
    assert module["scan"].docstring.parsed[0].value == "Run it.\n\nSource: somebody, section 3."


def test_constants_assigned_together_are_there(module: griffe.Module) -> None:
    assert [str(module[name].value) for name in ("LOW", "HIGH")] == ["1.5", "3"]
    assert module["HIGH"].docstring.value == "Bounds, in hours."


@pytest.mark.parametrize(
    "said",
    [
        "One line.",
        "Two\n\nparagraphs: here.",
        "Text.\n\nExamples\n--------\n>>> 1 + 1\n2",
        "Notes\n-----\nSo it is.",
    ],
)
def test_what_is_no_list_stays(said: str) -> None:
    assert written_out(said) == said


def test_numpydoc_in_full_stays_as_it_is() -> None:
    said = "Text.\n\nParameters\n----------\nrows\n    How many.\nname\n    Of it."
    assert written_out(said) == said


def test_long_descriptions_of_several_names_are_given_once() -> None:
    long = (
        "a table with so many columns that one would not like to read them again and again, all of them here"
    )
    out = written_out(f"T.\n\nAttributes\n----------\nfirst, second : {long}")
    assert out.count(long) == 1
    assert out.endswith("second\n    See `first`.")
