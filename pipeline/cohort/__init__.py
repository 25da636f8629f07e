"""Who is in: cut into sequences and pieces, split by subject, scaled, aligned; and the scored set.

In: window times and quality, clean labs, admissions, whom an encoder was trained on.
Out: sequences, splits, lab scaling of the training patients, pieces with histories and targets, the draws
    that every method is judged on.
Never: an embedding's content; a statistic of a held-out patient, but where a preset repeats published work and says so
    (``ScalerConfig.fitted_on`` "everything").
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "aligned": ["AlignedCohort", "series_by_patient"],
        "alignment": ["align"],
        "alignment_config": ["AlignmentConfig", "authors_alignment", "paper_alignment"],
        "base": ["PatientWindows", "WindowStore"],
        "dense_points": ["DensePoints", "PointSource"],
        "dense_sums": ["DenseBlock", "DenseSums", "accumulate_dense_sums"],
        "encoder_patients": [
            "LearnedFrom",
            "PATIENTS_KEY",
            "known_patients",
            "learned_from",
            "refuse_learned_patients",
            "to_header",
        ],
        "normalization": ["LabScaler", "ScalerConfig", "fit_lab_scaler"],
        "scored_set": ["ScoredSet", "check_predictions", "in_method_order", "scored_sets"],
        "sequences": ["SequenceConfig", "Sequences", "cut_sequences"],
        "splits": ["SplitConfig", "Splits", "cross_validation_divisions", "normal_id", "split_subjects"],
        "summed_set": ["SummedSet", "dense_sets", "summed", "summed_sets"],
        "targets": ["StepGrid"],
    },
)
