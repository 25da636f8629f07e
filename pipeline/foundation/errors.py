"""Errors that a user can mend: each message names what was found, the rule and the remedy."""


class ProjectError(Exception):
    """Base of every error that the user's input or configuration causes; never a programmer's mistake."""


class RecordError(ProjectError):
    """A waveform record cannot be read as its header promises."""


class LabError(ProjectError):
    """A lab table cannot be understood: columns, units, times or identifiers."""


class StoreError(ProjectError):
    """The embedding store is missing, damaged, or was written for something else."""


class CheckpointError(ProjectError):
    """A checkpoint does not fit the model that is to be built from it."""


class ConfigError(ProjectError):
    """A configuration names something that does not exist or contradicts itself."""


class OtherRunError(ConfigError):
    """A training folder holds a run of another configuration, cohort or split than the one that is asked for."""


class OtherRankError(ProjectError):
    """Another process of the same distributed training has failed; its own message says why."""


class LeakError(ProjectError):
    """Information would pass from held-out patients, or from the future, into a model."""


class MissingArtifactError(ProjectError):
    """A stage needs the result of an earlier stage that has not run."""


class StaleArtefactError(ProjectError):
    """An artefact was made with another configuration, or from other inputs, than the stage that would use it has."""


class OtherSourceError(ConfigError):
    """A folder holds the artefacts of another source than the one that is named now."""
