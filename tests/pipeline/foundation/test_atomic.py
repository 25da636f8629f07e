"""Files are whole or absent, private, and refusals of the disk are explained."""

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest

from pipeline.foundation import atomic
from pipeline.foundation.errors import StoreError

NOBODY = 65534


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_every_writer_round_trips_and_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    frame = pd.DataFrame({"x": [1, 2], "y": ["p", "q"]})
    atomic.write_bytes(folder / "bytes", b"\x00\x01")
    atomic.write_text(folder / "text", "µ")
    atomic.write_json(folder / "json", {"b": 1, "a": [1.5, None]})
    atomic.write_parquet(folder / "parquet", frame)
    assert (folder / "bytes").read_bytes() == b"\x00\x01"
    assert (folder / "text").read_text(encoding="utf-8") == "µ"
    assert (folder / "json").read_text().index('"a"') < (folder / "json").read_text().index('"b"')
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "parquet"), frame, check_dtype=False)
    assert {mode(path) for path in folder.iterdir()} == {0o600}
    assert (mode(folder), mode(folder.parent)) == (0o700, 0o700)
    assert len(list(folder.iterdir())) == 4, "no temporary file is left"


def test_private_under_any_umask(tmp_path: Path) -> None:
    previous = os.umask(0o277)
    try:
        atomic.make_private_dir(tmp_path / "a" / "b")
    finally:
        os.umask(previous)
    assert (mode(tmp_path / "a"), mode(tmp_path / "a" / "b")) == (0o700, 0o700)


def test_existing_folder_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    atomic.write_text(tmp_path / "x", "1")
    assert mode(tmp_path) == 0o750


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    atomic.write_text(tmp_path / "x", "old")
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic.write_json(tmp_path / "x", {"a": float("nan")})
    assert (tmp_path / "x").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_interrupted_before_rename_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atomic.write_text(tmp_path / "x", "old")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StoreError, match="the disk is full"):
        atomic.write_text(tmp_path / "x", "new")
    assert (tmp_path / "x").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_other_os_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="strange") as caught, atomic.explained_os_errors(tmp_path):
        raise OSError(errno.EIO, "strange")
    assert not isinstance(caught.value, StoreError)


def test_file_in_the_way_of_a_folder(tmp_path: Path) -> None:
    atomic.write_text(tmp_path / "x", "1")
    with pytest.raises(StoreError, match="a part of the path is a file"):
        atomic.make_private_dir(tmp_path / "x")
    with pytest.raises(StoreError, match="a part of the path is a file"):
        atomic.write_text(tmp_path / "x" / "y", "1")


def run_unprivileged(code: str, folder: Path) -> str:
    """Run `code` as a user whom permissions bind (root ignores them) and return its standard output."""
    prefix = "import os\nif os.getuid() == 0:\n    os.setgid(65534)\n    os.setuid(65534)\n"
    imports = "import sys\nfrom pathlib import Path\nfrom pipeline.foundation import atomic, errors\n"
    result = subprocess.run(
        [sys.executable, "-c", imports + prefix + textwrap.dedent(code), str(folder)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    return result.stdout + result.stderr


def test_read_only_folder_is_explained(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if folder.owner() != "root" or os.getuid() == 0:
            folder.chmod(folder.stat().st_mode | 0o055)
    tmp_path.chmod(0o555)
    output = run_unprivileged(
        """
        for act in (lambda p: atomic.write_text(p / "x", "1"), lambda p: atomic.make_private_dir(p / "d")):
            try:
                act(Path(sys.argv[1]))
            except errors.StoreError as error:
                print(error)
        """,
        tmp_path,
    )
    assert output.count("the folder may not be written: change its permissions") == 2, output
    assert list(tmp_path.iterdir()) == []


def test_publish_folder(tmp_path: Path) -> None:
    staging = tmp_path / "staging" / "one"
    (staging / "inner").mkdir(parents=True)
    (staging / "inner" / "chunk").write_bytes(b"1")
    atomic.publish_folder(staging, tmp_path / "store" / "final")
    chunk = tmp_path / "store" / "final" / "inner" / "chunk"
    assert chunk.read_bytes() == b"1"
    assert (mode(chunk), mode(chunk.parent)) == (0o600, 0o700)
    assert not staging.exists()

    (staging / "inner").mkdir(parents=True)
    with pytest.raises(FileExistsError):
        atomic.publish_folder(staging, tmp_path / "store" / "final")


def test_a_file_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="a part of the path is a file"):
        atomic.require_writable(tmp_path / "file" / "out.parquet")
    with pytest.raises(StoreError, match="it is a folder"):
        atomic.require_writable(tmp_path)
    atomic.require_writable(tmp_path / "new" / "out.parquet")
    assert not (tmp_path / "new").exists()
