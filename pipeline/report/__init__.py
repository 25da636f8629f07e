"""Numbers in; pages, pictures and tables for people out.

In: the tables of evaluation and training; a checkpoint and its store, of which prediction draws a few patients' course.
Out: the report, Table 1 beside the paper's, text for the terminal, SVG.
Never: a model or a metric of its own; a patient's id or date.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "baseline_text": ["baseline_table"],
        "comparison_text": ["comparison_table"],
        "emulation_text": ["emulation_text"],
        "figures": ["forest_svg", "loss_curve_svg", "trajectory_svg"],
        "inputs": ["ReportInputs"],
        "made_of": ["made_of_table"],
        "page": ["write_report"],
        "paper_table": ["table1", "table1_text"],
        "recovery_text": ["recovery_text"],
        "result_delay_text": ["delay_text"],
        "scale_text": ["scale_text"],
        "trajectories": ["bedside_trajectories"],
    },
)
