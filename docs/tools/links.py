"""Links between files of the repository, made into links between pages of the site."""

import os.path
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

LINK = re.compile(r"(?P<bang>!?)\[(?P<text>[^\]]*)\]\((?P<to>[^)#\s]*)(?P<anchor>#[^)\s]*)?\)")
FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2[^\S\n]*$", re.MULTILINE | re.DOTALL)
"""A fenced block, whose brackets are code."""


def site_links(text: str, file: str, page: str, places: Mapping[str, str], root: Path) -> str:
    """Return a page's Markdown with each link leading where its target stands in the site.

    A link to a file of the repository that is no page, such as a module, becomes its text alone; one to nothing stays
    as it is, and MkDocs refuses it.

    Parameters
    ----------
    file : path of the text in the repository
    page : path of its page in the site
    places : path in the site of each file of the repository that is in it
    root : of the repository
    """

    def moved(link: re.Match[str]) -> str:
        to = link["to"]
        if not to or "://" in to or to.startswith("mailto:"):
            return link.group()
        target = os.path.normpath(PurePosixPath(file).parent / to)
        if target not in places:
            return link["text"] if (root / target).exists() else link.group()
        place = os.path.relpath(places[target], PurePosixPath(page).parent)
        return f"{link['bang']}[{link['text']}]({place}{link['anchor'] or ''})"

    parts, last = [], 0
    for fence in FENCE.finditer(text):
        parts += [LINK.sub(moved, text[last : fence.start()]), fence.group()]
        last = fence.end()
    return "".join([*parts, LINK.sub(moved, text[last:])])
