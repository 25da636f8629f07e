"""Lab rows in; clean events, and what was known at a time, out.

In: raw rows in any unit.
Out: one clean result a draw in the schema's units, versions of corrected results, histories, values carried
    forward.
Never: a waveform; a result before it was available.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "base": ["CarryForward"],
        "carry_forward": ["fit_carry_forward", "fit_decayed_locf", "fit_shrunk_locf"],
        "cleaning": ["LabConfig", "LabEvents", "clean_labs", "lab_counts"],
        "history": ["HistoryConfig", "LabHistory", "LabSeries", "lab_history", "last_available_before"],
        "versions": ["final_results"],
    },
)
