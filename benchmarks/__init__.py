"""Speed and memory, as ratios within one run: one driver, a registry of cases, results as rows.

In: cases with their providers, ours and its peers.
Out: a table on the terminal, rows in ``results/``.
Never: a timed test, a figure without the command and the machine that gave it.
"""
