"""Sizes and choices of the sequence model."""

from dataclasses import dataclass

from models.regressor.mamba_block import MambaConfig
from models.regressor.patient_state import MODES, PatientStateMode

FIVE_LABS = ("potassium", "calcium", "sodium", "glucose", "lactate")


@dataclass(frozen=True, kw_only=True)
class LabRegressorConfig:
    """Sizes of the sequence model.

    Attributes
    ----------
    embed_width : of the encoder's window embedding
    task_labs : labs estimated, in the order of the output's columns
    history_labs : labs of the history, in the order of its second axis; the shared trunk sees them all
    history_features : per lab
    d_model, n_blocks, d_state, expand, d_conv : of the shared backbone's Mamba blocks, and of each lab's own
    dropout : share dropped after each mixer and MLP, in training mode alone
    patient_state : where states start: "none" (zeros), "learned" (a constant) or "pcs" (patient-conditioned)
    trunk_width : of the patient's code
    dt_min : shortest step size at initialisation: 0.001 gives the slowest mode of a state, h0 included, a
        memory of 1000 steps (8 h)
    history_skip : add a projection of the patient's code to what each lab's own layer reads at every step, and a
        line through that lab's history to its estimate; mode "pcs" alone. h0 fades and the norm before the
        read-out bounds it, so that a far-off last value can hardly be held; this can. Ours; the paper
        conditions by h0 alone.
    slow_features : number of lasting directions of the embedding (see ``slow_features``) that the model sees
        instead of the standardised embedding; None: the embedding. Ours.
    mean_steps : time constants, in steps, of running means of these features, which begin at the pooled history.
        They are shown to the backbone beside the features, and a line through them is added to each estimate. Ours.
    reader_width : width of an LSTM that reads the latest ten windows, as the LSTM baseline does, and whose read-out is
        added to each estimate; None: no such reader. Meant to be fitted before training (``training.line_fit``);
        without that it starts at zero and learns with the rest. Ours.
    """

    embed_width: int
    task_labs: tuple[str, ...] = FIVE_LABS
    history_labs: tuple[str, ...] = FIVE_LABS
    history_features: int = 4
    d_model: int = 256
    n_blocks: int = 4
    d_state: int = 16
    expand: int = 2
    d_conv: int = 4
    dropout: float = 0.1
    patient_state: PatientStateMode = "pcs"
    trunk_width: int = 128
    dt_min: float = 0.001
    history_skip: bool = False
    slow_features: int | None = None
    mean_steps: tuple[float, ...] = ()
    reader_width: int | None = None

    def __post_init__(self) -> None:
        for name in ("embed_width", "history_features", "n_blocks", "trunk_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; it must lie in [0, 1).")
        if self.patient_state not in MODES:
            raise ValueError(
                f"patient_state is {self.patient_state!r}; it must be one of {', '.join(MODES)}."
            )
        if not self.task_labs or len(set(self.task_labs)) < len(self.task_labs):
            raise ValueError(f"task_labs is {self.task_labs}; it must name at least one lab, and none twice.")
        if unknown := set(self.task_labs) - set(self.history_labs):
            raise ValueError(f"task_labs has {', '.join(sorted(unknown))}; history_labs must hold it too.")
        if self.slow_features is not None and not 1 <= self.slow_features <= self.embed_width:
            raise ValueError(
                f"slow_features is {self.slow_features}; it must lie in [1, embed_width = {self.embed_width}]."
            )
        if any(steps < 1 for steps in self.mean_steps):
            raise ValueError(f"mean_steps is {self.mean_steps}; each must be at least 1.")
        if self.reader_width is not None and self.reader_width < 1:
            raise ValueError(f"reader_width is {self.reader_width}; it must be at least 1, or None.")
        _ = self.mamba  # its own checks

    @property
    def feature_width(self) -> int:
        """Numbers per window that the model goes on with."""
        return self.slow_features or self.embed_width

    @property
    def mamba(self) -> MambaConfig:
        """Sizes of each Mamba layer."""
        return MambaConfig(
            d_model=self.d_model, d_state=self.d_state, d_conv=self.d_conv, expand=self.expand, dt_min=self.dt_min
        )  # fmt: skip
