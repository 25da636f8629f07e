"""Checkpoint and data in, estimates with intervals out."""
