"""One thread a process: `make test` runs two, on two cores. And what tests of several folders share."""

import os
from collections.abc import Generator, Iterator
from typing import Any

import jaxtyping
import pytest
from xdist.scheduler import LoadFileScheduling

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

TOGETHER = ("tests/e2e/",)
"""Folders whose files share a fixture of the session: one worker takes all of them."""
LONGEST = (
    "tests/e2e/",
    "tests/kernels/selective_scan/triton/test_backend.py",
    "tests/pipeline/stages/",
    "tests/pipeline/training/",
    "tests/pipeline/",
)
"""What takes longest begins first, so that no worker is left alone with it at the end."""

WHOLE_RUNS = ("emulation", "evaluation", "prediction", "pretraining", "rehearsal", "stages", "training")
UNCHECKED = ("tests/e2e/", *(f"tests/pipeline/{room}/" for room in WHOLE_RUNS))
"""Where whole jobs run: checking types and shapes at each of a hundred thousand calls doubles their time, so that
`make test` leaves it out there. A whole job under these checks is a slow test (tests/e2e/test_types.py), and pytest by
itself (without ``-n``) checks everywhere."""


class FixturesOnce(LoadFileScheduling):
    """Give each file to one worker, which makes its fixtures once, and the files of a folder of `TOGETHER` to the same.

    By paths, since pytest-xdist 3.8's own ``xdist_group`` is without effect under pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return next((folder for folder in TOGETHER if file.startswith(folder)), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FixturesOnce | None:
    return FixturesOnce(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        return next((n for n, path in enumerate(LONGEST) if item.nodeid.startswith(path)), len(LONGEST))

    if hasattr(config, "workerinput"):
        items.sort(key=rank)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Check types and shapes at run time, or not, in a test and in what it sets up."""
    unchecked = hasattr(item.config, "workerinput") and item.nodeid.startswith(UNCHECKED)
    jaxtyping.config.update("jaxtyping_disable", unchecked)
    return (yield)


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """Give the URL of an empty bucket on a local S3 server, which subprocesses reach as well."""
    pytest.importorskip("s3fs", reason="the extra s3 is not installed")
    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    import s3fs

    with pytest.MonkeyPatch.context() as environment:
        server = moto.ThreadedMotoServer(port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            environment.setenv(name, value)
        # s3fs would keep to the server of another module, and moto keeps buckets as long as the process lives.
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir(f"embeddings-{port}")
        yield f"s3://embeddings-{port}"
        server.stop()
