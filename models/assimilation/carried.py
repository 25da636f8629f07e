"""The last result carried forward, beside the filter: of labs whose histories are not the filter's kind.

A filter is best where levels, drifts and noises are Gaussian. What is extreme is treated, and some patients move as no
others do: there two numbers fitted to the last result alone may err less, and a mean of both less than either. A young
result and an old one have a share each: what is known of a patient who is tested is not what was known long ago.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
from jaxtyping import Float

from models.assimilation.events import HOUR_US
from models.assimilation.known import Query, Result, standing
from models.errors import BadAssimilationInput


@dataclass(frozen=True, kw_only=True)
class CarriedShare:
    """How much of an estimate is the last result, drawn towards a centre, and how it is drawn.

    The last result says ``centre + weight exp(-decay_per_hour age) (last - centre)``, in clinical units: LOCF with
    weight 1 and no decay, shrunk LOCF with no decay. An estimate is (1 - share) times the filter's and share times
    that; without a result it is the filter's.

    Attributes
    ----------
    share, weight : 0..1
    decay_per_hour : of the weight, by the hours since the draw; 0: none
    centre : clinical units

    Source: our decision; docs/assimilation.md.
    """

    share: float = 0.0
    weight: float = 0.0
    decay_per_hour: float = 0.0
    centre: float = 0.0

    def __post_init__(self) -> None:
        for name in ("share", "weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadAssimilationInput(
                    f"{name} of the last result is {getattr(self, name)}; it must lie in 0..1."
                )
        if not 0 <= self.decay_per_hour < np.inf or not np.isfinite(self.centre):
            raise BadAssimilationInput(
                f"The last result decays by {self.decay_per_hour} an hour towards {self.centre}; both must be finite, "
                "and the decay not negative."
            )

    def carried(
        self, last: Float[np.ndarray, "*n"], hours: Float[np.ndarray, "*n"]
    ) -> Float[np.ndarray, "*n"]:
        """Return what the last result says `hours` after its draw, clinical units; NaN without one."""
        return self.centre + self.weight * np.exp(-self.decay_per_hour * hours) * (last - self.centre)

    def joined(
        self,
        filtered: Float[np.ndarray, "*n"],
        last: Float[np.ndarray, "*n"],
        hours: Float[np.ndarray, "*n"],
    ) -> Float[np.ndarray, "*n"]:
        """Return the estimate; with the share 0, or without a result, it is the filter's, to the bit."""
        if not self.share:
            return filtered
        both = (1 - self.share) * filtered + self.share * self.carried(last, hours)
        return np.where(np.isnan(last), filtered, both)


YOUNG_HOURS, OLD_HOURS = 6.0, 30.0
"""A result is young up to the one and old from the other on; between them its share passes evenly from one to the
other, so that an estimate has no step."""


@dataclass(frozen=True, kw_only=True)
class CarriedShares:
    """What the last result counts in a lab's estimate while it is young, and when it is old."""

    young: CarriedShare = field(default_factory=CarriedShare)
    old: CarriedShare = field(default_factory=CarriedShare)

    @property
    def any(self) -> bool:
        """Whether it counts at all."""
        return bool(self.young.share or self.old.share)

    @property
    def whole(self) -> bool:
        """Whether nothing but the last result counts, however old it is."""
        return self.young.share == self.old.share == 1

    @property
    def numbers(self) -> list[list[float]]:
        """The four numbers of both, as a checkpoint keeps them."""
        return [[getattr(one, name) for name in _NAMES] for one in (self.young, self.old)]

    @classmethod
    def of(cls, numbers: Sequence[Sequence[float]]) -> "CarriedShares":
        """Return what `numbers` stands for.

        Raises
        ------
        BadAssimilationInput : a share or weight outside 0..1, an infinite number, a negative decay
        """
        young, old = (CarriedShare(**dict(zip(_NAMES, row, strict=True))) for row in numbers)
        return cls(young=young, old=old)

    def joined(
        self,
        filtered: Float[np.ndarray, "*n"],
        last: Float[np.ndarray, "*n"],
        hours: Float[np.ndarray, "*n"],
    ) -> Float[np.ndarray, "*n"]:
        """Return the estimate, clinical units.

        Parameters
        ----------
        filtered : the filter's median
        last : latest result that is known; NaN without one
        hours : since its draw
        """
        if not self.any:
            return filtered
        aged = _aged(hours)
        young, old = (one.joined(filtered, last, hours) for one in (self.young, self.old))
        return np.where(np.isnan(last), filtered, (1 - aged) * young + aged * old)

    def counted(self, hours: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Return what a last result counts some hours after its draw; 0 without one (NaN)."""
        aged = _aged(hours)
        return np.where(np.isnan(hours), 0.0, (1 - aged) * self.young.share + aged * self.old.share)


def _aged(hours: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Return how far a result has passed from young to old."""
    return np.clip((hours - YOUNG_HOURS) / (OLD_HOURS - YOUNG_HOURS), 0.0, 1.0)


_NAMES = tuple(number.name for number in fields(CarriedShare))


def last_known(
    results: Sequence[Result], query: Query
) -> tuple[Float[np.ndarray, " queries"], Float[np.ndarray, " queries"]]:
    """Return the latest draw's value that stands when each question's knowledge ends, and its age at the asked time.

    Returns
    -------
    value : on the results' scale; NaN where no result stands
    hours : from the draw to the asked time; NaN likewise
    """
    value, hours = np.full(len(query.at_us), np.nan), np.full(len(query.at_us), np.nan)
    changes, done = standing(results), 0
    stands: dict[tuple[int, int, int], Result] = {}
    last: Result | None = None
    for i in np.argsort(query.known_us, kind="stable").tolist():
        before = done
        while done < len(changes) and changes[done][0] <= query.known_us[i]:
            _, key, result = changes[done]
            if result is None:
                stands.pop(key, None)
            else:
                stands[key] = result
            done += 1
        if done > before:
            last = stands[max(stands)] if stands else None
        if last is not None:
            value[i], hours[i] = last.value, (query.at_us[i] - last.sampled_us) / HOUR_US
    return value, hours
