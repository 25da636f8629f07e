"""The whole job at true size on planted inputs: time and memory of every stage out.

In: how many patients and days.
Out: a table, a row a stage, and what the whole would take.
Never: used by a real run; another experiment's folder. Its table stands here, since `report` lies below it and is
    rehearsed itself.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "plan": ["Rehearsal", "RehearsalSize"],
        "run": ["other_sizes", "rehearse"],
        "table": ["growth_table", "rehearsal_table"],
    },
)
