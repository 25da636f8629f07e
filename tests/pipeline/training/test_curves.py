from pipeline.training.curves import kept_epochs


def test_the_epoch_kept_is_told_by_part_and_what_0_means():
    rows = [
        {"part": part, "epoch": epoch, "kept": epoch == kept}
        for part, kept in (("glucose", 0), ("sodium", 2))
        for epoch in (1, 2)
    ]
    said = kept_epochs(rows)
    assert said.startswith(", epoch kept: sodium 2, glucose 0; 0: no epoch was clearly better")
    assert kept_epochs([{"part": "all", "epoch": 1, "kept": True}]) == ", epoch kept: 1"
    assert kept_epochs([{"part": "all", "epoch": 1}]) == ""
