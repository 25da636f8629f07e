"""Whom an encoder has learned from: keyed hashes in its weights file, and the divisions that they forbid.

A fine-tuned encoder knows its training patients' labs. Judged on one of them, every method behind it would look better
than it is, and nothing in a run with artefacts of its own would tell. So the weights file itself says whom it knows.

Each file draws a salt of its own, and an id becomes PBKDF2-HMAC-SHA256(id, salt). What that protects: the file shows no
id; no table computed once reads it; two files with the same patients look as different as any two. What it does not:
whoever holds the file and a list of candidates can try each of them, a millisecond a name, and the numbers of public
databases are few. A key kept apart from the weights would close that, and would make the guard silent wherever the
weights travel without it; a guard that falls silent is none. So the file says *who took part* to those who know whom to
ask, and must be treated like the data that it was made from, as its note says.
"""

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.cohort.splits import Splits, normal_id
from pipeline.foundation.errors import CheckpointError, LeakError
from pipeline.foundation.tensor_files import weights_texts

PATIENTS_KEY = "learned_from"
"""Key of the hashes in the header of a safetensors file."""
ITERATIONS = 1000
"""A millisecond a patient: a whole cohort is checked in seconds."""
DIGEST_BYTES = 16
MAY_BE_IN = {"train": ("train",), "validation": ("train", "validation")}
"""For those whose labs trained an encoder, or chose its epoch: where a later division may put them."""


@dataclass(frozen=True, kw_only=True)
class LearnedFrom:
    """The patients of one fine-tuning, as salted hashes.

    Attributes
    ----------
    salt, iterations : of the hash
    hashes : by what the patients were used for, a key of `MAY_BE_IN`
    """

    salt: bytes
    iterations: int
    hashes: Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, patients: Mapping[str, Iterable[str]]) -> "LearnedFrom":
        """Hash patients, by what they were used for, under a new salt."""
        salt = secrets.token_bytes(16)
        hashes = {
            use: frozenset(_hashed(patient, salt, ITERATIONS) for patient in ids)
            for use, ids in patients.items()
        }
        return cls(salt=salt, iterations=ITERATIONS, hashes=hashes)

    def use_of(self, patient_id: str) -> str | None:
        """Return what a patient was used for; None for one who took no part."""
        found = _hashed(patient_id, self.salt, self.iterations)
        return next((use for use, hashes in self.hashes.items() if found in hashes), None)


def to_header(generations: Sequence[LearnedFrom]) -> str:
    """Return the text under `PATIENTS_KEY`; sorted, so that the order tells nothing."""
    rows = [
        {
            "salt": one.salt.hex(), "iterations": one.iterations,
            "hashes": {use: sorted(hashes) for use, hashes in one.hashes.items()},
        }
        for one in generations
    ]  # fmt: skip
    return json.dumps(rows, sort_keys=True)


def learned_from(weights: Path | None) -> tuple[LearnedFrom, ...]:
    """Return whom the weights in a file were fine-tuned on, once for each time; empty for any other file.

    Raises
    ------
    CheckpointError : the header cannot be read
    """
    if weights is None:
        return ()
    try:
        rows = json.loads(weights_texts(weights).get(PATIENTS_KEY, "[]"))
        return tuple(
            LearnedFrom(
                salt=bytes.fromhex(row["salt"]),
                iterations=int(row["iterations"]),
                hashes={use: frozenset(row["hashes"].get(use, ())) for use in MAY_BE_IN},
            )
            for row in rows
        )
    except (OSError, KeyError, AttributeError, TypeError, ValueError) as problem:
        raise CheckpointError(
            f"{weights.name}: its header cannot be read ({type(problem).__name__}), so that nobody knows whom these "
            "weights learned from; bring the file anew"
        ) from None


def known_patients(generations: Iterable[LearnedFrom], patients: Iterable[str]) -> frozenset[str]:
    """Return those of `patients` whose labs trained the encoder or chose its epoch."""
    generations = tuple(generations)
    return frozenset(p for p in patients if any(one.use_of(p) is not None for one in generations))


def refuse_learned_patients(generations: Iterable[LearnedFrom], splits: Splits, encoder: str) -> None:
    """Refuse a division that holds out a patient whom the encoder has learned from.

    Parameters
    ----------
    encoder : what the encoder is called in the message

    Raises
    ------
    LeakError : it does; the message tells how many, and what to do
    """
    generations = tuple(generations)
    if not generations:
        return
    held_out = sum(
        any((use := one.use_of(patient)) is not None and name not in MAY_BE_IN[use] for one in generations)
        for name in splits.members
        if name != "train"
        for patient in splits.members[name]
    )
    if held_out:
        raise LeakError(
            f"the encoder {encoder} was fine-tuned on the labs of {held_out} patients whom this division does not "
            "put into training, so that every number on them would flatter: divide as the run that trained the "
            "encoder did (the same patients, splits.seed and splits.fractions), put them into training in a splits "
            "file of your own, choose another encoder, or, where the same ids mean other people (another hospital, "
            "another synthetic cohort), say so with --set encoder_patients=other_people"
        )


def _hashed(patient_id: str, salt: bytes, iterations: int) -> str:
    name = normal_id(patient_id).encode()
    return hashlib.pbkdf2_hmac("sha256", name, salt, iterations, DIGEST_BYTES).hex()
