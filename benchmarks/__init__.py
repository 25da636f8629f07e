"""Benchmarks: one driver, a registry of cases, results as rows."""
