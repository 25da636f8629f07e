"""Records come back as they were written; a version changes with content and with nothing else."""

import os
from pathlib import Path

import pytest

from pipeline.foundation.artefact_records import ArtefactRecord, file_states, version_of
from pipeline.foundation.errors import StaleArtefactError


def record(files) -> ArtefactRecord:
    return ArtefactRecord(
        stage="s", config={"a.b": [1, None]}, inputs={"x": "1"}, ancestors={"x": "1", "y": "2"},
        licences=("l",), files=files, version=version_of(files),
    )  # fmt: skip


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("content")
    written = record(file_states(tmp_path, [tmp_path / "a"]))
    written.save(tmp_path / "provenance" / "s.json")
    assert ArtefactRecord.load(tmp_path / "provenance" / "s.json") == written
    assert ArtefactRecord.load(tmp_path / "provenance" / "t.json") is None


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 2}', '{"format": 1, "stage": "s"}'])
def test_a_damaged_record_names_its_stage(tmp_path: Path, content: str) -> None:
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(StaleArtefactError, match="run the stage 's' again"):
        ArtefactRecord.load(tmp_path / "s.json")


def test_content_alone_makes_the_version(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("content")
    known = file_states(tmp_path, [path])
    os.utime(path, ns=(1, 1))
    assert version_of(file_states(tmp_path, [path], known)) == version_of(known)
    path.write_text("CONTENT")
    assert version_of(file_states(tmp_path, [path], known)) != version_of(known)


def test_a_file_that_did_not_change_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("content")
    known = file_states(tmp_path, [tmp_path / "a"])
    monkeypatch.setattr(Path, "open", lambda *arguments, **keywords: pytest.fail("read again"))
    assert file_states(tmp_path, [tmp_path / "a"], known) == known
