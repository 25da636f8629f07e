"""The command line's sub-commands that are no stage of the job.

In: arguments.
Out: text on the terminal.
Never: domain logic.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "evaluation": ["add_evaluation_commands"],
        "pretraining": ["add_pretraining_commands"],
        "store": ["add_store_commands"],
    },
)
