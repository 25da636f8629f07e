"""Group train, by hand: the encoder fine-tuned on labs; a run of its own names the weights."""

from assets.cohort import lab_alignment
from assets.common import stage_asset
from pipeline import stages

train_encoder = stage_asset(
    stages.train_encoder,
    group="train",
    deps=[lab_alignment],
    kinds=("pytorch",),
    by_hand=True,
    pool="training",
    description="PPG-GPT, fine-tuned on the windows before the training patients' blood draws; validation patients "
    "choose the epoch, nobody else is looked at. **epoch kept** is 0 where no epoch was better for them: the weights "
    "are then those of the base.\n\n"
    "Nothing here uses the weights: name them in a run with artefacts of its own, as **name it by** says. They know "
    "whom they learned from, and a division that holds one of these patients out is refused.\n\n"
    "It starts only when its run config says `start: true`; *Materialize all* on the lineage page passes it by.",
)
