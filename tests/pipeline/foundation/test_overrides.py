"""Fields by dotted names; how overrides are checked is tested with the experiments."""

from dataclasses import dataclass, field, replace

from pipeline.foundation.overrides import differences, dotted, overridden


@dataclass(frozen=True, kw_only=True)
class Inner:
    low: float = 1.0
    high: float = 2.0

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low must not exceed high")


@dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    names: tuple[str, ...] = ("a",)


def test_fields_are_listed_by_dotted_name() -> None:
    assert dotted(Outer()) == {"inner.low": 1.0, "inner.high": 2.0, "names": ["a"]}


def test_only_what_differs_is_a_difference() -> None:
    other = replace(Outer(), inner=Inner(high=3.0))
    assert differences(other, Outer()) == {"inner.high": 3.0}
    assert differences(Outer(), Outer()) == {}


def test_no_override_leaves_the_very_object() -> None:
    config = Outer()
    assert overridden(config, {}) is config
    assert overridden(config, {"inner.low": "5", "inner.high": "6"}) == Outer(inner=Inner(low=5.0, high=6.0))
