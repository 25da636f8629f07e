"""All domain logic, from waveforms and lab tables to the report: a house of rooms, and one command line.

In: folders of waveforms and labs, an experiment's configuration.
Out: embeddings, checkpoints, estimates, metrics, the report, under the experiment's folder.
Never: Dagster; an import from ``assets``.
"""
