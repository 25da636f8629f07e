"""Count the numbers of a trained method: in its network, lines, reader of the latest windows, history line, filters."""

from collections import Counter
from pathlib import Path

from torch import Tensor

from models.assimilation.lab_assimilation import LabAssimilation
from models.assimilation.parameters import NAMES
from models.regressor.lab_lines import LabLines
from models.regressor.lab_regressor import LabRegressor
from models.regressor.patient_state import PatientState
from models.regressor.waveform_readout import WaveformReadout
from pipeline.foundation.artefact_notes import apart
from pipeline.foundation.schema import LAB_NAMES
from pipeline.training.checkpoints import TrainedModel, checkpoint_folders, load_model
from pipeline.training.makeup import Makeup


def makeup_of(folder: Path | str) -> Makeup:
    """Count the numbers of the checkpoint, or of the checkpoints by lab (st_pcs), in a run's folder.

    Raises
    ------
    CheckpointError : as ``load_model`` does
    """
    numbers: Counter[str] = Counter()
    labs: list[str] = []
    without: list[str] = []
    carried: dict[str, tuple[float, float]] = {}
    method = ""
    for place in checkpoint_folders(folder):
        with apart():  # counting numbers makes nothing of them
            loaded = load_model(place)
        method = loaded.method
        labs += loaded.labs
        found, silent = counted(loaded.model, loaded.labs)
        numbers.update(found)
        without += silent
        carried |= carried_of(loaded.model, loaded.labs)
    in_order = [lab for lab in LAB_NAMES if lab in labs]
    return Makeup(
        method=method,
        numbers={part: n for part, n in numbers.items() if n},
        labs=tuple(in_order),
        without_waveform=tuple(lab for lab in in_order if lab in without),
        carried={lab: carried[lab] for lab in in_order if lab in carried},
    )


def carried_of(model: TrainedModel, labs: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    """Return what the last result counts in an assimilated estimate, young and old, where it counts anything."""
    if not isinstance(model, LabAssimilation):
        return {}
    shares = zip(labs, model.carried_by_lab, strict=True)
    return {lab: (own.young.share, own.old.share) for lab, own in shares if own.any}


def counted(model: TrainedModel, labs: tuple[str, ...]) -> tuple[dict[str, int], list[str]]:
    """Return the numbers of a model by part, and the labs whose estimate no waveform enters."""
    silent = [lab for lab, reads in zip(labs, model.reads_waveform, strict=True) if not reads]
    return _numbers(model), silent


def _numbers(model: TrainedModel) -> dict[str, int]:
    if isinstance(model, LabAssimilation):
        return _of_filters(model)
    if isinstance(model, LabLines):
        waveform = _of_waveform(model.waveform)
        lines = waveform.pop("lines") + _present(model.bias)
        return {"lines": lines, **waveform, "history": _present(model.history_line)}
    total = sum(weight.numel() for weight in model.parameters())
    if not isinstance(model, LabRegressor):
        return {"network": total - model.log_variance.numel()}
    states = [part for part in model.modules() if isinstance(part, PatientState)]
    history = [state.line.weight for state in states if state.line is not None]
    held = [*history, *model.waveform.parameters(), model.log_variance]
    parts = _of_waveform(model.waveform) | {"history": sum(_present(weight) for weight in history)}
    return {"network": total - sum(weight.numel() for weight in held), **parts}


def _of_waveform(readout: WaveformReadout) -> dict[str, int]:
    lines = 0 if readout.line is None else _present(readout.line.weight)
    reader = readout.reader
    heard = reader is not None and bool(reader.heads.weight.any())
    return {"lines": lines, "reading": sum(w.numel() for w in reader.parameters()) if heard and reader else 0}


def _of_filters(model: LabAssimilation) -> dict[str, int]:
    read = model.reads_waveform
    lines = sum(_present(model.line_weight[row]) + 1 for row, used in enumerate(read) if used)
    networks, heeded = 0, model.network
    if heeded is not None and bool((heeded.share.cpu().numpy() > 0)[read].any()):
        networks = sum(weight.numel() for weight in heeded.members.parameters())
    return {"network": networks, "lines": lines, "filters": len(NAMES) * len(read)}


def _present(weight: Tensor) -> int:
    return int(weight.count_nonzero())
