"""Pictures as they go into a page."""

import re

import numpy as np

from pipeline.report import style


def test_a_path_has_two_decimals_and_runs_as_before():
    with style.styled():
        figure = style.new_figure(4.0, 2.0)
        figure.subplots().plot(np.linspace(0, 1, 50), np.sin(np.linspace(0, 9, 50)))
        svg = style.to_svg(figure)
    paths = re.findall(r' d="([^"]*)"', svg)
    assert not any(re.search(r"\.\d{3}", path) for path in paths)
    line = max(paths, key=len)
    x = [float(point.split()[1]) for point in line.strip().splitlines()]
    steps = np.diff(x)
    assert len(x) == 50
    assert np.ptp(steps) <= 0.021
    assert steps.min() > 1
