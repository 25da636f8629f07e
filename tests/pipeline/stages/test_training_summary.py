"""What the page and the terminal say of a training: the error of what is kept, and that nothing was done."""

import os
from pathlib import Path

from pipeline.stages.training import _where_it_ended, unchanged_since, weight_files


def epoch(number: int, error: float, kept: bool, part: str = "all") -> dict:
    return {"part": part, "epoch": number, "loss": number or None, "selection_error": error, "kept": kept}


def test_the_error_shown_is_that_of_the_model_that_is_kept() -> None:
    """Epoch 2 is a little lower by luck, and was not kept: its error is nobody's."""
    rows = [epoch(0, 0.30, True), epoch(1, 0.31, False), epoch(2, 0.299, False)]
    assert _where_it_ended(rows) == {"final_loss": 2.0, "best_validation_error": 0.30}


def test_of_a_method_with_a_model_a_lab_the_mean_is_shown() -> None:
    rows = [epoch(1, 0.2, True, "sodium"), epoch(2, 0.1, True, "sodium"), epoch(1, 0.3, True, "lactate")]
    assert _where_it_ended(rows)["best_validation_error"] == 0.2


def test_a_finished_training_says_so_and_how_to_train_anew(tmp_path: Path) -> None:
    weights = tmp_path / "best" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"1")
    os.utime(weights, (1_700_000_000, 1_700_000_000))
    before = weight_files([tmp_path])
    told = unchanged_since(before, weight_files([tmp_path]), "mt_pcs")
    assert told.startswith("trained on 2023-11-1")
    assert "nothing to do; to train anew, move checkpoints/mt_pcs away" in told
    weights.write_bytes(b"2")
    assert unchanged_since(before, weight_files([tmp_path]), "mt_pcs") == ""
    assert unchanged_since({}, before, "mt_pcs") == ""
