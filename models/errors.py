"""Errors of this layer; the pipeline turns them into its own, which add what the user should do."""


class CheckpointMismatch(ValueError):
    """Weights cannot be read, or do not fit the architecture that is to hold them."""


class BadAssimilationInput(ValueError):
    """Numbers of a filter, or the events that it is to assimilate, cannot be meant so."""
