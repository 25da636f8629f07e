"""Stage 1: windows through an encoder into the store."""
