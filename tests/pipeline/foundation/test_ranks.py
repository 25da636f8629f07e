"""What a process believes of itself under torchrun, and in a shell where an earlier launch left its variables."""

import pytest

from pipeline.foundation.ranks import (
    process_count,
    processes_on_this_machine,
    rank_on_this_machine,
    speaks_for_all,
)

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@pytest.mark.parametrize(("environment", "count", "speaks", "local", "beside"), [
    ({}, 1, True, 0, 1),
    ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}, 2, True, 0, 2),
    ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}, 2, False, 1, 2),
    ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}, 4, False, 1, 2),
    ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, 4, False, 1, 1),
    ({"RANK": "1"}, 1, True, 0, 1),
    ({"RANK": "1", "LOCAL_RANK": "1"}, 1, True, 0, 1),
    ({"RANK": "one", "WORLD_SIZE": "many", "LOCAL_RANK": "", "LOCAL_WORLD_SIZE": "0"}, 1, True, 0, 1),
])  # fmt: skip
def test_a_process_knows_its_place(
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    count: int,
    speaks: bool,
    local: int,
    beside: int,
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert process_count() == count
    assert speaks_for_all() == speaks
    assert rank_on_this_machine() == local
    assert processes_on_this_machine() == beside
