"""Waveforms in; encoder weights, and what they know, out."""
