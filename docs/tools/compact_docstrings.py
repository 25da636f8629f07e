"""Our compact numpydoc, ``name : what it is`` on one line, written out for Griffe, which takes that line for a type.

Types come from the signature. A line of "Returns" is prose unless it begins with a name and a colon.
"""

import ast
import inspect
import itertools
import re
from collections.abc import Iterator

import griffe

NAMED = re.compile(r"(?P<names>\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: :(?: (?P<said>.*))?)?")
"""A parameter, an attribute, an error: one name or several, perhaps with a description."""
RETURNED = re.compile(r"(?P<names>[A-Za-z_]\w*(?:, [A-Za-z_]\w*)*) : (?P<said>.+)")
SHAPE = re.compile(r"\((?:[\w.]+(?: ?[-+*/] ?[\w.]+)*)?(?:, ?(?:[\w.]+(?: ?[-+*/] ?[\w.]+)*)?)+\)")
"""A tuple of sizes, such as ``(batch, length, 2 * channels)``."""
LISTS = ("Parameters", "Other Parameters", "Attributes", "Raises", "Warns")
RESULTS = ("Returns", "Yields")
INDENT = "    "
LONGEST_TWICE = 80
"""Characters of a description that is given for each of several names; a longer one is given for the first."""


class CompactNumpydoc(griffe.Extension):
    """Rewrites each docstring before Griffe reads its sections."""

    def on_instance(self, *, obj: griffe.Object, **_: object) -> None:
        """Write out the docstring of a module, class, function or attribute."""
        if obj.docstring:
            obj.docstring.value = written_out(obj.docstring.value)

    def on_module_members(
        self, *, node: ast.AST | griffe.ObjectNode, mod: griffe.Module, **_: object
    ) -> None:
        """Add the constants that one line assigns together, ``LOW, HIGH = 1, 2``, which Griffe passes over."""
        if isinstance(node, ast.Module):
            for name, value, said in together_assigned(node):
                docstring = griffe.Docstring(said, parent=mod) if said else None
                mod.set_member(name, griffe.Attribute(name, value=value, docstring=docstring, parent=mod))


def together_assigned(module: ast.Module) -> Iterator[tuple[str, str, str]]:
    """Yield name, value and docstring (of all of them) of each constant that is assigned with others in one line."""
    for number, line in enumerate(module.body):
        if not (isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Tuple)):
            continue
        after = module.body[number + 1] if number + 1 < len(module.body) else None
        said = (
            after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
        )
        values = line.value.elts if isinstance(line.value, ast.Tuple) else []
        for place, target in enumerate(line.targets[0].elts):
            if isinstance(target, ast.Name):
                value = ast.unparse(values[place]) if place < len(values) else ast.unparse(line.value)
                yield target.id, value, inspect.cleandoc(str(said))


def written_out(docstring: str) -> str:
    """Return a docstring in which each name stands on a line of its own, its description indented below.

    Prose that follows a list, such as a source, moves to the end of the text above the first section.
    """
    head, sections = _parts(docstring)
    lines: list[str] = []
    tail: list[str] = []
    for title, body in sections:
        items, prose = _items(title, body)
        tail += prose
        lines += ["", title, "-" * len(title), *_without_blank_end(items)]
    return "\n".join([*_without_blank_end([*_without_blank_end(head), *tail]), *lines]).strip("\n")


def _without_blank_end(lines: list[str]) -> list[str]:
    """Return lines up to the last one that is not blank."""
    return lines[: max((number for number, line in enumerate(lines, start=1) if line.strip()), default=0)]


def _parts(docstring: str) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return the lines above the first section, and each section's title and lines."""
    lines = docstring.splitlines()
    starts = [
        number
        for number, rule in enumerate(lines[1:])
        if re.fullmatch(r"-{3,}", rule) and lines[number].strip()
    ]
    bounds = [*starts, len(lines)]
    sections = [(lines[start], lines[start + 2 : end]) for start, end in itertools.pairwise(bounds)]
    return lines[: bounds[0]], sections


def _items(title: str, body: list[str]) -> tuple[list[str], list[str]]:
    """Return a section's lines written out, and the paragraphs that are none of its items."""
    if title not in (*LISTS, *RESULTS):
        return body, []
    listed, prose = _split_off_prose(title, body)
    if title in RESULTS and not all(RETURNED.fullmatch(first) for first, _ in _blocks(listed)):
        return [":", *(INDENT + line.strip() for line in listed)], prose
    pattern = RETURNED if title in RESULTS else NAMED
    items: list[str] = []
    for first, more in _blocks(listed):
        match = pattern.fullmatch(first)
        if match is None:
            return body, []
        said = _sentence(match["said"] or "", [line.strip() for line in more])
        first_name, *others = match["names"].split(", ")
        again = [f"See `{first_name}`."] if len(" ".join(said)) > LONGEST_TWICE else said
        for name, text in ((first_name, said), *((name, again) for name in others)):
            items += [f"{name} :" if title in RESULTS else name, *(INDENT + line for line in text)]
    return items, prose


def _split_off_prose(title: str, body: list[str]) -> tuple[list[str], list[str]]:
    """Return a section's list, and the paragraphs after it: of a list those without a name."""
    paragraphs = [part.splitlines() for part in "\n".join(body).strip("\n").split("\n\n")]
    listed, prose = paragraphs[0], []
    for paragraph in paragraphs[1:]:
        named = title in LISTS and NAMED.fullmatch(paragraph[0])
        if named or paragraph[0].startswith(" "):
            listed = [*listed, *paragraph]
        else:
            prose += ["", *paragraph]
    return listed, prose


def _blocks(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each line that is not indented, with the indented ones below it."""
    first, more = "", []
    for line in filter(str.strip, lines):
        if line.startswith(" "):
            more.append(line)
            continue
        if first:
            yield first, more
        first, more = line, []
    if first:
        yield first, more


def _sentence(said: str, more: list[str]) -> list[str]:
    """Return a description: what stood on the name's line, a shape as code, and the lines below it."""
    shape = SHAPE.match(said)
    if shape:
        said = f"`{shape.group()}`{said[shape.end() :]}"
    if said and more and said[-1] not in ".,;:" and more[0][0].isupper():
        said += "."
    return [line for line in (said, *more) if line] or ["\u2013"]
