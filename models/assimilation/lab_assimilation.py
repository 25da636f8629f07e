"""What assimilates a new patient: per lab a scale, read-outs of the waveform and a filter, as one module."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from models.assimilation.carried import CarriedShares, last_known
from models.assimilation.known import KnownRow, Query, queried
from models.assimilation.parameters import NAMES, FilterParameters
from models.assimilation.reading_network import ReadingNetworkConfig, ReadingNetworks
from models.assimilation.scan import filter_events
from models.assimilation.transform import LabTransform
from models.errors import BadAssimilationInput


@dataclass(frozen=True, kw_only=True)
class LabAssimilationConfig:
    """What the module's tensors are for.

    Attributes
    ----------
    embed_width : of the encoder's window embedding
    task_labs : labs estimated, in the order of every axis of labs
    log_scale : those whose logarithm is assimilated
    assays, assay_noise : source codes of other assays than a lab's main one, and the noise variance of each over the
        main one's; a code that is not among them counts as the main assay
    network : sizes of the networks whose reading joins the lines'; None: lines alone
    """

    embed_width: int
    task_labs: tuple[str, ...]
    log_scale: tuple[str, ...] = ()
    assays: tuple[str, ...] = ()
    assay_noise: tuple[float, ...] = ()
    network: ReadingNetworkConfig | None = None

    def __post_init__(self) -> None:
        if self.embed_width < 1:
            raise ValueError(f"embed_width is {self.embed_width}; it must be at least 1.")
        if not self.task_labs or len(set(self.task_labs)) < len(self.task_labs):
            raise ValueError(f"task_labs is {self.task_labs}; it must name at least one lab, and none twice.")
        if len(self.assays) != len(self.assay_noise) or not all(0 < x < np.inf for x in self.assay_noise):
            raise ValueError(
                f"assay_noise is {self.assay_noise}; it must hold a positive number for each of {self.assays}."
            )


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The labs at some questions.

    Attributes
    ----------
    median : clinical units; of labs of which the last result has a share, the mean of the filter's median and that
    draw_spread : standard deviation of a draw about it, of the logarithm where the lab is on the log scale
    """

    median: Float[np.ndarray, "queries labs"]
    draw_spread: Float[np.ndarray, "queries labs"]


class LabAssimilation(nn.Module):
    """Every lab's filter, and what reads the waveform for it; nothing learns, everything but the networks is float64.

    A lab's reading is (1 - share) line + share networks, on the filter's scale: a line through the mean embedding of
    ten minutes, and the mean of several networks that go through these means in order. Neither sees a result, and the
    filter asks only how far readings follow the lab. Of some labs a share of the estimate is the last result
    (``carried``).

    Source: our decision; docs/assimilation.md.
    """

    line_weight: Tensor
    line_bias: Tensor
    has_line: Tensor
    centre: Tensor
    spread: Tensor
    numbers: Tensor
    carried: Tensor

    def __init__(self, config: LabAssimilationConfig):
        super().__init__()
        self.config = config
        n, double = len(config.task_labs), torch.float64
        self.register_buffer("line_weight", torch.zeros(n, config.embed_width, dtype=double))
        self.register_buffer("line_bias", torch.zeros(n, dtype=double))
        self.register_buffer("has_line", torch.zeros(n, dtype=torch.bool))
        self.register_buffer("centre", torch.zeros(n, dtype=double))
        self.register_buffer("spread", torch.ones(n, dtype=double))
        prior = FilterParameters.of()
        self.register_buffer("numbers", torch.cat([getattr(prior, name) for name in NAMES]).repeat(n, 1))
        self.register_buffer("carried", torch.tensor([CarriedShares().numbers] * n, dtype=double))
        network = config.network
        self.network = None if network is None else ReadingNetworks(network, config.embed_width, n)

    def set_lab(
        self,
        lab: str,
        transform: LabTransform,
        parameters: FilterParameters,
        line: tuple[Float[np.ndarray, " width"], float] | None,
        carried: CarriedShares = CarriedShares(),  # noqa: B008 - frozen
    ) -> None:
        """Set one lab: scale, the eleven numbers (one row), weights and bias of its line (None: no reading), share."""
        row = self.config.task_labs.index(lab)
        if transform.log != (lab in self.config.log_scale):
            raise BadAssimilationInput(
                f"The scale of {lab} contradicts log_scale; fit both with one configuration."
            )
        self.centre[row], self.spread[row] = transform.centre, transform.spread
        self.numbers[row] = torch.stack([getattr(parameters.checked(), name)[0] for name in NAMES]).detach()
        self.carried[row] = torch.tensor(carried.numbers, dtype=torch.float64)
        self.has_line[row] = line is not None
        if line is not None:
            self.line_weight[row], self.line_bias[row] = torch.from_numpy(line[0]), line[1]

    @property
    def parameters_by_lab(self) -> FilterParameters:
        """The eleven numbers, one row a lab."""
        columns = self.numbers.cpu().unbind(1)
        return FilterParameters(**dict(zip(NAMES, columns, strict=True))).checked()

    @property
    def transforms(self) -> tuple[LabTransform, ...]:
        """The labs' scales."""
        rows = zip(self.config.task_labs, self.centre.tolist(), self.spread.tolist(), strict=True)
        return tuple(
            LabTransform(log=lab in self.config.log_scale, centre=centre, spread=spread)
            for lab, centre, spread in rows
        )

    @property
    def carried_by_lab(self) -> tuple[CarriedShares, ...]:
        """What the last result counts in each lab's estimate."""
        return tuple(CarriedShares.of(numbers) for numbers in self.carried.tolist())

    @property
    def log_scale(self) -> Bool[np.ndarray, " labs"]:
        """Which labs' logarithms are assimilated."""
        return np.array([lab in self.config.log_scale for lab in self.config.task_labs])

    @property
    def reads_waveform(self) -> Bool[np.ndarray, " labs"]:
        """Which labs' estimates change with the waveform; the others' filters see results alone.

        There is a line, it or the networks count, the filter takes readings to follow the lab, and the estimate is not
        the last result alone.
        """
        heard = (self.line_weight != 0).any(dim=1)
        if self.network is not None:
            heard = heard | (self.network.share > 0)
        read = (self.has_line & heard & (self.numbers[:, NAMES.index("gain")] != 0)).cpu().numpy()
        return read & ~np.array([carried.whole for carried in self.carried_by_lab])

    def noise_of(self, code: str) -> float:
        """Return the noise variance of an assay over that of its lab's main one."""
        codes = self.config.assays
        return self.config.assay_noise[codes.index(code)] if code in codes else 1.0

    def readings(
        self, means: Float[np.ndarray, "blocks width"], end_us: Int[np.ndarray, " blocks"]
    ) -> Float[np.ndarray, "blocks labs"]:
        """Read a patient's mean embeddings of ten minutes; NaN without a line. No bit depends on a later block.

        Parameters
        ----------
        end_us : end of each block, in order of time
        """
        line = self.line_readings(means)
        if self.network is None:
            return line
        share = self.network.share.cpu().numpy()
        if not share.any():
            return line
        return joined_reading(line, self.network.read(means, end_us), share)

    def line_readings(self, means: Float[np.ndarray, "blocks width"]) -> Float[np.ndarray, "blocks labs"]:
        """Return what the lines say of each block; NaN without one."""
        weight, bias = self.line_weight.cpu().numpy(), self.line_bias.cpu().numpy()
        read = [weight @ row + bias for row in means]
        table = np.array(read, dtype=float).reshape(-1, len(self.config.task_labs))
        return np.where(self.has_line.cpu().numpy(), table, np.nan)

    def answers(self, rows: list[KnownRow], query: Query) -> Answers:
        """Answer the same questions for every lab of one patient.

        Parameters
        ----------
        rows : one a lab, in the labs' order, on the labs' scales

        Raises
        ------
        BadAssimilationInput : an infinite reading or result, or one draw with two values from one moment on
        """
        numbers = self.parameters_by_lab
        plan = queried(rows, [query] * len(rows))
        with torch.no_grad():
            filtered = filter_events(numbers.take(plan.events.lab), plan.events)
            mean, variance = plan.answers(numbers.take(plan.events.lab), filtered)
        shape = len(rows), len(query.at_us)
        variance = variance.reshape(shape) + numbers.draw_noise[:, None]
        medians = [
            _joined(carried, transform, own, row, query)
            for carried, transform, own, row in zip(
                self.carried_by_lab, self.transforms, mean.reshape(shape).numpy(), rows, strict=True
            )
        ]
        spread = variance.sqrt() * self.spread.cpu()[:, None]
        return Answers(median=np.stack(medians, axis=1), draw_spread=spread.numpy().T)


def _joined(
    carried: CarriedShares,
    transform: LabTransform,
    mean: Float[np.ndarray, " queries"],
    row: KnownRow,
    query: Query,
) -> Float[np.ndarray, " queries"]:
    """Return one lab's estimates, clinical units, from the filter's mean and the last result known."""
    filtered = transform.median(mean)
    if not carried.any:
        return filtered
    last, hours = last_known(row.results, query)
    return carried.joined(filtered, transform.from_scale(last), hours)


def joined_reading(
    line: Float[np.ndarray, "*blocks labs"],
    network: Float[np.ndarray, "*blocks labs"],
    share: Float[np.ndarray, " labs"] | float,
) -> Float[np.ndarray, "*blocks labs"]:
    """Return the reading that a line's and a network's make; with the share 0 it is the line's, to the bit."""
    return np.where(np.equal(share, 0), line, (1 - share) * line + share * network)
