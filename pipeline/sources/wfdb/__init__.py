"""WFDB records, read strictly.

In: headers and signal files.
Out: PLETH, one segment and at most an hour at a time, with its rails.
Never: another channel, a gap filled in memory, a file that a header does not promise.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "codes": ["code_format"],
        "folder": ["WfdbFolder", "parse_assume_start"],
        "header": ["BadRecord", "Header", "contained", "read_header"],
        "records": [
            "CHUNK_SECONDS",
            "MAX_RATE_HZ",
            "MIN_RATE_HZ",
            "open_record",
            "read_stretches",
            "record_files",
        ],
    },
)
