"""Kalman filter of a four-dimensional state over scalar values, many rows at once, with its own adjoint."""

from .interface import kalman_scan
from .step import floored, least_variance, predicted, updated

__all__ = ["floored", "kalman_scan", "least_variance", "predicted", "updated"]
