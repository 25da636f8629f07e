"""One thread a process: `make test` runs two, on two cores. And what tests of several folders share."""

import os
from collections.abc import Iterator

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")


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
