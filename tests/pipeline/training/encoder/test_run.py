"""Fine-tuning: what is trained, what is kept, to the bit after an interruption, and that it helps."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.encoders.ppg_gpt import PPGGPT, PPGGPTConfig
from pipeline.cohort.encoder_patients import LearnedFrom, learned_from
from pipeline.embedding.encoders import make_encoder
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.schema import LAB_NAMES
from pipeline.training.encoder import run as encoder_run
from pipeline.training.encoder.config import EncoderTrainingConfig
from pipeline.training.encoder.draws import EncoderDraws
from pipeline.training.encoder.run import UNFINISHED, TunedDraws, plan_batches, tune
from pipeline.training.encoder.weights import WEIGHTS_FILE, adapted, check_tunable, merged
from pipeline.training.encoder.windows import FULL_SCALE, WindowCache

CONFIG = EncoderTrainingConfig(
    epochs=3, patience=None, rank=2, batch_draws=16, draws_together=3, step_windows=2, warmup_epochs=0.5,
    learning_rate=1e-2, device="cpu",
)  # fmt: skip
LEARNED = (LearnedFrom.of({"train": ["100017"], "validation": []}),)


def encoder() -> PPGGPT:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = PPGGPTConfig(d_model=16, n_layers=2, n_heads=2, dropout=0.0)
        return PPGGPT(sizes, name="small", readout="mean").eval()


def drawn(patients: int, seed: int, draws: int = 4) -> TunedDraws:
    """Windows whose beat is as deep as a lab is high, with a level of each patient's own."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(patients), draws)
    depth = rng.uniform(0.1, 0.9, len(owner))
    time = np.arange(1200) / 40
    phase = rng.uniform(0, 2 * np.pi, (len(owner), 3, 1))
    beat = 0.5 + 0.5 * depth[:, None, None] * np.sin(2 * np.pi * (1.2 * time + phase))
    beat += 0.05 * rng.standard_normal(beat.shape)
    target = np.full((len(owner), len(LAB_NAMES)), np.nan)
    target[:, 0] = (
        4 + depth + 0.3 * rng.standard_normal(patients)[owner] + 0.05 * rng.standard_normal(len(owner))
    )
    window = np.arange(3 * len(owner)).reshape(-1, 3)
    window[::5, 2] = -1
    found = EncoderDraws(
        patients=tuple(map(str, range(patients))), patient=owner, sampled_us=np.arange(len(owner)), target=target,
        window=window, start_us=np.arange(3 * len(owner)), owner=np.repeat(owner, 3),
    )  # fmt: skip
    samples = np.rint(beat.reshape(-1, 1200).clip(0, 1) * FULL_SCALE).astype(np.uint16)
    return TunedDraws(draws=found, windows=WindowCache(samples=samples))


TRAINING, VALIDATION = drawn(20, 0), drawn(10, 1)


def tuned(folder: Path, config: EncoderTrainingConfig = CONFIG, identity: str = "one", **parts: TunedDraws):
    return tune(
        encoder(), parts.get("training", TRAINING), parts.get("validation", VALIDATION), config, folder,
        identity=identity, learned=LEARNED,
    )  # fmt: skip


def weights_of(folder: Path) -> str:
    return make_encoder(str(folder / UNFINISHED / WEIGHTS_FILE)).weights_hash


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("finished")
    return folder, tuned(folder, replace(CONFIG, epochs=6))


def test_it_helps_patients_who_were_not_learned_from(finished) -> None:
    _, state = finished
    start, kept = state.rows[0], state.rows[state.best_epoch]
    assert state.best_epoch > 0
    assert kept["validation_loss"] < start["validation_loss"] - 0.05
    assert kept["within_r2"]["potassium"] > start["within_r2"]["potassium"]


def test_the_file_is_plain_ppg_gpt_with_its_patients(finished) -> None:
    folder, state = finished
    path = folder / UNFINISHED / WEIGHTS_FILE
    read = make_encoder(f"{path}+mean")
    assert isinstance(read, PPGGPT)
    assert read.weights_hash == state.best_weights["weights_hash"] != encoder().weights_hash
    assert read.state_dict().keys() == encoder().state_dict().keys()
    assert learned_from(path)[0].use_of("100017") == "train"
    untouched = {"patch_embedding.sep", "gpt_layers.0.ffn.linear1.weight", "gpt_layers.1.attn.w_k.weight"}
    for name, tensor in encoder().state_dict().items():
        if name in untouched:
            assert torch.equal(tensor, read.state_dict()[name]), name


def test_the_same_run_gives_the_same_bits_and_leaves_the_callers_seed_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = tuned(tmp_path / "a")
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(77)
    again = tuned(tmp_path / "b")
    assert weights_of(tmp_path / "a") == weights_of(tmp_path / "b")
    assert [row["loss"] for row in first.rows] == [row["loss"] for row in again.rows]
    other = tuned(tmp_path / "c", replace(CONFIG, seed=1))
    assert [row["loss"] for row in first.rows] != [row["loss"] for row in other.rows]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_interrupted_run_goes_on_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    whole = tuned(tmp_path / "whole")
    train_epoch = encoder_run._Run._train_epoch

    def killed(run: encoder_run._Run, epoch: int):
        if epoch == at:
            raise KeyboardInterrupt
        return train_epoch(run, epoch)

    monkeypatch.setattr(encoder_run._Run, "_train_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        tuned(tmp_path / "cut")
    monkeypatch.setattr(encoder_run._Run, "_train_epoch", train_epoch)
    gone_on = tuned(tmp_path / "cut")
    assert [row["loss"] for row in gone_on.rows] == [row["loss"] for row in whole.rows]
    assert weights_of(tmp_path / "cut") == weights_of(tmp_path / "whole")
    assert len(tuned(tmp_path / "cut", identity="two").rows) == 4  # another run begins anew


def test_validation_patients_choose_the_epoch_and_nothing_else(tmp_path: Path) -> None:
    last = replace(CONFIG, selection="last")
    one = tuned(tmp_path / "a", last)
    other = tuned(tmp_path / "b", last, validation=drawn(6, 9))
    assert weights_of(tmp_path / "a") == weights_of(tmp_path / "b")
    assert [row["loss"] for row in one.rows] == [row["loss"] for row in other.rows]
    assert [row["validation_loss"] for row in one.rows] != [row["validation_loss"] for row in other.rows]
    assert one.best_epoch == 3


def test_where_validation_patients_find_nothing_better_the_weights_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, losses = encoder_run._Run._judge, iter([0.5, 0.6, 0.5, 0.4])
    monkeypatch.setattr(encoder_run._Run, "_judge", lambda run: replace(judge(run), loss=next(losses)))
    state = tuned(tmp_path, replace(CONFIG, epochs=8, patience=2))
    assert state.best_epoch == 0
    assert state.epoch == 2  # given up
    assert weights_of(tmp_path) == encoder().weights_hash


def test_too_few_draws_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"no lab has 20 draws of training patients .*encoder_training.minutes_before"
    ):
        tuned(tmp_path, training=drawn(4, 0))


def test_a_loss_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"lower encoder_training.learning_rate"):
        tuned(tmp_path, replace(CONFIG, learning_rate=1e18, clip=1e30))


@pytest.mark.parametrize("adapt", ["lora", "last_layers"])
def test_only_what_the_recipe_names_is_trained_and_merging_changes_nothing(adapt) -> None:
    config = replace(CONFIG, adapt=adapt, layers=1, places=("w_q", "linear2"), dropout=0.25)
    base = encoder()
    model = adapted(base, config)
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    if adapt == "lora":
        assert all(".lora_" in name and (".w_q." in name or ".linear2." in name) for name in names)
        assert len(names) == 2 * 2 * 2
    else:
        assert names == {name for name, _ in base.named_parameters() if name.startswith("gpt_layers.1.")}
    assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} == {0.25}
    with torch.no_grad():
        for p in model.parameters():
            p += 0.05 * p.requires_grad
    x = torch.rand(3, 1200)
    torch.testing.assert_close(
        merged(model).embed(x), model.eval().features(x).detach(), atol=1e-5, rtol=1e-5
    )
    assert not torch.allclose(merged(model).embed(x), base.embed(x), atol=1e-3)
    assert all(p.requires_grad for p in base.parameters()), "the encoder that was given stays as it is"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            replace(CONFIG, adapt="last_layers", layers=3),
            "layers is 3, and small has 2 layers: choose 1 to 2",
        ),
        (replace(CONFIG, rank=17), "rank is 17, and small is 16 wide: choose 1 to 16"),
    ],
)
def test_what_the_encoder_has_not_is_refused(config: EncoderTrainingConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_tunable(encoder(), config)


def test_an_encoder_of_another_kind_is_refused() -> None:
    class Other:
        name = "papagei_s"

    with pytest.raises(
        ConfigError, match="papagei_s cannot be fine-tuned: train_encoder adapts PPG-GPT alone"
    ):
        check_tunable(Other(), CONFIG)


def test_every_draw_stands_once_in_an_epoch_beside_others_of_its_patient() -> None:
    patient = np.repeat([0, 1, 2, 3], [7, 1, 3, 5])
    batches = plan_batches(patient, together=3, batch_draws=5, seed=0, epoch=0)
    groups = [group for batch in batches for group in batch]
    assert sorted(np.concatenate(groups)) == list(range(16))
    assert all(len(group) <= 3 and len(set(patient[group])) == 1 for group in groups)
    assert all(sum(map(len, batch)) < 5 + 3 for batch in batches)
    again = plan_batches(patient, together=3, batch_draws=5, seed=0, epoch=1)
    assert [g.tolist() for b in again for g in b] != [g.tolist() for g in groups]


@pytest.mark.gpu
def test_a_gpu_trains_the_same_recipe(tmp_path: Path) -> None:
    state = tuned(tmp_path, replace(CONFIG, device="cuda", precision="float32"))
    reference = tuned(tmp_path / "cpu", replace(CONFIG, precision="float32"))
    losses = [[row["loss"] for row in one.rows[1:]] for one in (state, reference)]
    np.testing.assert_allclose(*losses, rtol=1e-2, atol=1e-3)
