"""Predictions in, numbers with intervals out.

In: scored draws of every method, the same for all; clean labs for baselines without a model; checkpoints and
    their store for the leak check and for results that come later.
Out: metrics in clinical units, paired differences, agreement, alarms, coverage of intervals, subgroups, recovery,
    the leak check.
Never: a page, a picture or a table laid out for a person.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "agreement": ["agreement_table", "repeated_bland_altman"],
        "alarms": ["MINIMUM_EVENTS", "alarm_table"],
        "calibration_line": ["calibration_lines"],
        "characteristics": ["characteristics"],
        "coverage": ["GAP_EDGES_HOURS", "coverage", "gap_names", "reliability"],
        "delay_methods": ["ADDED", "DELAY_METHODS"],
        "emulation": ["DivisionPredictions", "emulation_rows"],
        "grids": ["ZONES", "clarke_zones", "allowable_error_table", "error_grids", "grid_table"],
        "judge": [
            "AGGREGATIONS",
            "ALL_SEEDS",
            "EvaluationConfig",
            "Judged",
            "comparison_of",
            "evaluation_of",
            "judge_sets",
            "select",
        ],
        "lab_baselines": ["LabBaselineConfig", "read_icu_stays", "real_lab_baselines"],
        "leak_check": ["changed_rows"],
        "recovery": [
            "IDEAL",
            "MODEL",
            "ON_EMBEDDING",
            "ORACLE",
            "OURS",
            "OUR_LINES",
            "OUR_TWIN",
            "PART_ADDED",
            "RESULTS_ALONE",
            "SUFFIXES",
            "TWIN",
            "TWIN_OF",
            "WITHOUT_TWIN",
            "ZERO_H0",
            "recovery_rows",
        ],
        "recovery_by": ["HOURS_RECORDED", "KNOWN_DRAWS", "recovery_by"],
        "recovery_conditions": ["CONDITIONS", "Condition", "LONG_CONDITIONS", "REGIMES"],
        "result_delay": ["delay_table"],
        "scale_study": ["EncoderCost", "StudiedEncoder", "scale_rows"],
        "shape_readout": [
            "LabelledBlocks",
            "ShapeBlocks",
            "ShapeReadout",
            "block_means",
            "fit_readout",
            "shape_blocks",
        ],
        "subgroups": ["GROUPINGS", "SubgroupConfig", "subgroup_table"],
    },
)
