"""Data sources: one adapter a file, one protocol in ``base``."""
