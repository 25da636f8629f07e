"""Tensors in, tensors out: one folder per kernel."""
