"""A synthetic ICU cohort with a known truth, on disk like MIMIC-III."""
