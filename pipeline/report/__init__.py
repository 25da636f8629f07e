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
        "claims": ["CLAIMED", "RULE", "claim_sentences", "claims"],
        "comparison_text": ["comparison_table"],
        "emulation_text": ["emulation_text"],
        "figures": ["added_svg", "forest_svg", "loss_curve_svg", "trajectory_svg"],
        "flow": ["Flow", "FlowArm", "FlowStep"],
        "inputs": ["ReportInputs"],
        "initial_state": ["initial_state_table"],
        "made_of": ["headline_text", "made_of_sentence", "made_of_table", "of_method", "patients_sentence"],
        "page": ["write_report"],
        "page_tables": ["coverage_rows", "followed_over_runs", "metrics_by_lab", "table1_by_method"],
        "paper_table": ["table1"],
        "paper_text": ["table1_text"],
        "patient_plot": ["picture_names", "write_pictures"],
        "recovery_figures": ["recovery_by_size_svg", "recovery_by_svg"],
        "recovery_text": ["recovery_text"],
        "result_delay_text": ["delay_text"],
        "scale_text": ["scale_text"],
        "synthetic": ["SyntheticCohort"],
        "trajectories": ["bedside_trajectories"],
    },
)
