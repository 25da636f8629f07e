"""The flow of patients and draws through the study, as a diagram: what came in, what was left out, who tests."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.foundation.number_format import counted
from pipeline.report.rendering import render_page

_LINE, _HEAD, _GAP = 17, 16, 26
_LEFT, _WIDTH, _RIGHT, _RIGHT_WIDTH, _TOTAL = 10, 380, 450, 440, 900
_CHARACTERS = 62


@dataclass(frozen=True, kw_only=True)
class FlowStep:
    """One stage of the way.

    Attributes
    ----------
    title : what is counted here
    counts : how many, by what
    dropped : what leaves here, by reason
    """

    title: str
    counts: Mapping[str, int]
    dropped: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class FlowArm:
    """One part that the patients are divided into: its name, what it is for, and how many it holds."""

    title: str
    purpose: str
    counts: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Flow:
    """All of the way: steps from top to bottom, then the parts side by side."""

    steps: Sequence[FlowStep]
    arms: Sequence[FlowArm]


@dataclass(frozen=True, kw_only=True)
class _Box:
    x: int
    y: int
    width: int
    height: int
    title: str
    lines: Sequence[str]


def flow_svg(flow: Flow) -> str:
    """Draw the flow; every number in it is one of `flow`."""
    boxes, arrows = [], []
    top, before = 8, 0
    for number, step in enumerate(flow.steps):
        kept = _lines(step.counts)
        gone = _lines(step.dropped)
        height = _height(kept)
        boxes.append(_Box(x=_LEFT, y=top, width=_WIDTH, height=height, title=step.title, lines=kept))
        if number:
            arrows.append((_LEFT + _WIDTH // 2, before, _LEFT + _WIDTH // 2, top))
        bottom = top + height
        if gone:
            side = _Box(
                x=_RIGHT, y=top, width=_RIGHT_WIDTH, height=_height(gone), title="left out", lines=gone
            )
            boxes.append(side)
            arrows.append((_LEFT + _WIDTH, top + 14, _RIGHT, top + 14))
            bottom = max(bottom, top + side.height)
        before = top + height
        top = bottom + _GAP
    top = _arms(flow.arms, top, before, boxes, arrows)
    return render_page(
        "flow.svg.jinja", boxes=boxes, arrows=arrows, width=_TOTAL, height=top, line=_LINE, head=_HEAD
    )


def _arms(
    arms: Sequence[FlowArm], top: int, before: int, boxes: list[_Box], arrows: list[tuple[int, int, int, int]]
) -> int:
    if not arms:
        return top
    width = (_TOTAL - 2 * _LEFT - 12 * (len(arms) - 1)) // len(arms)
    contents = [[*textwrap.wrap(arm.purpose, width // 7), *_lines(arm.counts)] for arm in arms]
    height = max(_height(lines) for lines in contents)
    for number, (arm, lines) in enumerate(zip(arms, contents, strict=True)):
        x = _LEFT + number * (width + 12)
        boxes.append(_Box(x=x, y=top, width=width, height=height, title=arm.title, lines=lines))
        middle = x + width // 2
        start = _LEFT + _WIDTH // 2
        arrows += [
            (start, before, start, top - 12),
            (start, top - 12, middle, top - 12),
            (middle, top - 12, middle, top),
        ]
    return top + height + 8


def _lines(counts: Mapping[str, int]) -> list[str]:
    return [line for what, n in counts.items() for line in textwrap.wrap(counted(n, what), _CHARACTERS)]


def _height(lines: Sequence[str]) -> int:
    return _HEAD + 10 + _LINE * len(lines) + 4
