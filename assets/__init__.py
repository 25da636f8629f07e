"""Dagster definitions: thin assets over the pipeline."""

from assets.definitions import defs as defs
