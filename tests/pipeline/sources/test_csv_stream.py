import gzip
from collections import Counter

import pandas as pd
import pytest

from pipeline.foundation.errors import LabError
from pipeline.sources.csv_stream import find_table, stream_csv

COLUMNS = {"patient": "subject_id", "code": "itemid", "value": "value"}


def read(path, **options):
    exclusions = Counter()
    rows = pd.concat(list(stream_csv(path, COLUMNS, exclusions, **options)), ignore_index=True)
    return rows, exclusions


def write(folder, content: bytes, name="t.csv"):
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "header",
    [b"subject_id,itemid,value", b"SUBJECT_ID,ITEMID,VALUE", b'\xef\xbb\xbf"Subject_ID", ItemID ,value'],
)
def test_columns_in_any_case(tmp_path, header):
    rows, _ = read(write(tmp_path, header + b"\n7,50971,4.1\n"))
    assert rows.to_dict("list") == {"patient": ["7"], "code": ["50971"], "value": ["4.1"]}


def test_gzipped_tables(tmp_path):
    path = write(tmp_path, gzip.compress(b"itemid,value,subject_id\n50971,4.1,007\n"), "t.csv.gz")
    assert read(path)[0].iloc[0].tolist() == ["007", "50971", "4.1"]


def test_cells_stay_text_whatever_they_hold(tmp_path):
    body = b'1,a,"4,1"\n2,b,"two\nlines"\n3,c,\x00<0.5 \n4,d,\n5,e,___\n' + b"6,f,5 \xb5g\n7,g,5 \xc2\xb5g\n"
    rows, exclusions = read(write(tmp_path, b"subject_id,itemid,value\n" + body))
    assert rows["value"].tolist() == ["4,1", "two\nlines", "<0.5", "", "___", "5 \xb5g", "5 \xb5g"]
    assert not exclusions


def test_rows_of_a_wrong_length_are_counted(tmp_path):
    rows, exclusions = read(write(tmp_path, b"subject_id,itemid,value\n1,a,1\n2,b\n3,c,3,4\n4,d,4\n"))
    assert rows["patient"].tolist() == ["1", "4"]
    assert exclusions == {"row with a wrong number of cells": 2}


def test_other_rows_are_left_out_as_they_stream_by(tmp_path):
    body = b"".join(b"%d,%d,x\n" % (i, 50000 + i % 1000) for i in range(5000))
    rows, exclusions = read(
        write(tmp_path, b"subject_id,itemid,value\n" + body), keep=("code", ["50971", "50813"])
    )
    assert len(rows) == 10
    assert set(rows["code"]) == {"50971", "50813"}
    assert not exclusions


def test_optional_columns_may_be_absent(tmp_path):
    path = write(tmp_path, b"subject_id,itemid\n1,a\n")
    assert read(path, optional=("value",))[0]["value"].tolist() == [""]
    with pytest.raises(LabError, match=r"has no column value; it has subject_id, itemid"):
        read(path)


CUT_OFF = gzip.compress(b"subject_id,itemid,value\n" + b"1,a,b\n" * 999, mtime=0)[:-20]


@pytest.mark.parametrize(
    ("name", "content"), [("t.csv", b""), ("t.csv.gz", b"no gzip at all"), ("t.csv.gz", CUT_OFF)]
)
def test_what_is_no_table_is_one_clear_error(tmp_path, name, content):
    with pytest.raises(LabError, match=name):
        read(write(tmp_path, content, name))


def test_an_absent_file_is_one_clear_error(tmp_path):
    with pytest.raises(LabError, match="cannot be read"):
        read(tmp_path / "t.csv")


def test_a_line_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.sources.csv_stream.BLOCK_BYTES", 1000)
    path = write(tmp_path, gzip.compress(b"subject_id,itemid,value\n1,a," + b"9" * 100_000), "t.csv.gz")
    with pytest.raises(LabError, match="cannot be read as CSV"):
        read(path)


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.sources.csv_stream.MAX_ROWS_KEPT", 100)
    path = write(tmp_path, gzip.compress(b"subject_id,itemid,value\n" + b"1,a,1\n" * 101), "t.csv.gz")
    with pytest.raises(LabError, match="over 100 rows"):
        read(path)


def test_find_table(tmp_path):
    write(tmp_path, b"", "LabEvents.csv.gz")
    assert find_table(tmp_path, "LABEVENTS") == tmp_path / "LabEvents.csv.gz"
    assert find_table(tmp_path, "PATIENTS") is None
