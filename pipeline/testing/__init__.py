"""Tiny cohorts for tests."""
