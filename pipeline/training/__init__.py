"""Pieces in, checkpoints out."""
