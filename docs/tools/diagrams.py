"""Two diagrams of the method page, drawn from boxes and arrows."""

from collections.abc import Sequence

INK, SOFT, RULE = "#1f2933", "#5f6c7b", "#d5dbe1"
BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"
STYLE = (
    "text{font:13px Helvetica Neue,Arial,DejaVu Sans,sans-serif;fill:#1f2933}"
    ".small{font-size:11px;fill:#5f6c7b}.head{font-weight:bold}"
)
ARROW_HEAD = (
    '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
    f'orient="auto-start-reverse"><path d="M0,0L8,4L0,8z" fill="{SOFT}"/></marker></defs>'
)


def drawing(width: int, height: int, parts: Sequence[str], title: str) -> str:
    """Return an SVG of the parts on white, with a title for those who cannot see it."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
        f"<title>{title}</title><style>{STYLE}</style>{ARROW_HEAD}"
        f'<rect width="{width}" height="{height}" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>"
    )


def words(x: float, y: float, text: str, kind: str = "", anchor: str = "middle") -> str:
    """Return one line of text."""
    return f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{text}</text>'


def box(x: float, y: float, width: float, lines: Sequence[str], colour: str) -> str:
    """Return a box of 50 points' height: its name, and below it what it is."""
    name, *more = lines
    middle = x + width / 2
    frame = (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="50" rx="7" fill="{colour}" fill-opacity=".09" '
        f'stroke="{colour}" stroke-width="1.2"/>'
    )
    said = [words(middle, y + 38, line, "small") for line in more]
    return "".join([frame, words(middle, y + (21 if more else 30), name, "head"), *said])


def arrow(*points: tuple[float, float]) -> str:
    """Return an arrow along the points."""
    path = "M" + "L".join(f"{x:g},{y:g}" for x, y in points)
    return f'<path d="{path}" fill="none" stroke="{SOFT}" stroke-width="1.4" marker-end="url(#head)"/>'


def two_stages() -> str:
    """Return the job from recordings and results to estimates."""
    parts = [
        words(20, 24, "Stage 1: once for each recording", "small", "start"),
        box(20, 36, 118, ("PPG", "WFDB, NPY, Parquet"), SOFT),
        box(172, 36, 130, ("windows", "30 s, 40 Hz, usable"), BLUE),
        box(336, 36, 122, ("PPG-GPT", "frozen encoder"), BLUE),
        box(492, 36, 148, ("embedding store", "Zarr, whole or not at all"), BLUE),
        words(20, 128, "Stage 2: labs, aligned on the same clock", "small", "start"),
        box(20, 140, 118, ("lab tables", "MEDS, MIMIC, CSV"), SOFT),
        box(172, 140, 130, ("clean results", "drawn at, known at"), GREEN),
        box(336, 140, 122, ("PCS", "history to h\u2080"), GREEN),
        box(492, 140, 148, ("Mamba regressor", "starts at h\u2080"), ORANGE),
        box(672, 140, 118, ("five labs", "every 30 s, intervals"), ORANGE),
        *(arrow((x, 61), (x + 30, 61)) for x in (140, 304, 460)),
        *(arrow((x, 165), (x + 30, 165)) for x in (140, 304, 460, 642)),
        arrow((566, 88), (566, 136)),
        arrow((520, 88), (520, 112), (397, 112), (397, 136)),
        words(408, 106, "mean before t0", "small", "start"),
    ]
    return drawing(810, 206, parts, "From recordings and results to estimates")


def pieces() -> str:
    """Return one sequence under both protocols: where a state starts, and what may be known to it."""
    left, right, t0 = 130, 760, 250
    known = (370, 560)
    parts = [
        words(20, 45, "results", "", "start"),
        f'<path d="M{left},40L{right},40" stroke="{RULE}" stroke-width="1.2"/>',
        *(f'<circle cx="{x}" cy="40" r="6" fill="{ORANGE}"/>' for x in (165, *known)),
        words(20, 90, "windows", "", "start"),
        *(
            f'<rect x="{x}" y="78" width="7" height="14" fill="{BLUE}" fill-opacity="{0.25 if x < t0 else 0.7}"/>'
            for x in range(left, right, 10)
            if not 440 <= x < 480
        ),
        words(460, 72, "no usable signal", "small"),
        f'<path d="M{t0},24L{t0},252" stroke="{SOFT}" stroke-dasharray="4 3"/>',
        words(t0, 18, "t0: 30 minutes of signal", "small"),
        *_course(146, "start", [(t0, right)], "one piece; later results stay unknown to it"),
        *_course(210, "anchored", [(t0, known[0]), (known[0], known[1]), (known[1], right)],
                 "a new piece whenever a result becomes available"),
    ]  # fmt: skip
    return drawing(810, 262, parts, "Pieces of a sequence under the two protocols")


def _course(y: int, name: str, spans: Sequence[tuple[int, int]], said: str) -> list[str]:
    parts = [words(20, y + 5, name, "head", "start")]
    for begin, end in spans:
        parts += [
            f'<rect x="{begin + 2}" y="{y - 10}" width="{end - begin - 4}" height="20" rx="4" fill="{GREEN}" '
            f'fill-opacity=".15" stroke="{GREEN}"/>',
            f'<circle cx="{begin + 2}" cy="{y}" r="5" fill="{GREEN}"/>',
            words(begin + 12, y + 4, "h\u2080", "small", "start"),
        ]
    return [*parts, words(spans[0][0] + 2, y + 27, said, "small", "start")]
