"""WFDB records, read strictly: headers checked before any sample, PLETH alone, memory flat."""
