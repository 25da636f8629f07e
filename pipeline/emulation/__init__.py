"""True physiology in, embeddings out, without a waveform: fitted on rendered windows for any encoder.

Here lie the emulator's fit, its file, the comparison with rendered windows, and the writer of whole emulated
cohorts (store, clinical tables, truth). Never a real patient: what it draws is planted from end to end.
"""
