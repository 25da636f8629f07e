"""How artefacts name an encoder that is given by path: its file's name and content, never a folder of the machine.

``/home/me/tuned.safetensors+mean`` becomes ``tuned.safetensors@<16 digits of the file's SHA-256>+mean``; names of
shipped encoders stay as they are. A folder of parts goes by its own name and the first part's content, which names
the weights of all.
"""

import functools
import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.encoders.part_names import first_part
from pipeline.embedding.names import EncoderName
from pipeline.experiments import ExperimentConfig
from pipeline.foundation.provenance import to_plain

_CONTENT = re.compile(r"@[0-9a-f]{16}(?=\+|$)")


def shown_encoder(name: str) -> str:
    """Return what artefacts call the encoder `name`; a file that is not there any more goes by its name alone."""
    kind, colon, place = name.partition(":") if re.match(r"\w+:", name) else ("", "", name)
    if colon and re.match(r"\w+:", place):  # emulated:papagei_s:/weights.pt
        return f"{kind}:{shown_encoder(place)}"
    parsed = EncoderName.parse(place)
    path = Path(parsed.weights)
    file = path if path.is_file() else first_part(path)
    if file is not None:
        status = file.stat()
        content = _sha256(str(file), (status.st_ino, status.st_size, status.st_mtime_ns))
        return f"{kind}{colon}{path.name}@{content[:16]}{parsed.words}"
    return f"{kind}{colon}{path.name}{parsed.words}"


def is_file(shown: str) -> bool:
    """Whether an artefact's encoder was given by path."""
    return bool(_CONTENT.search(shown))


def same_value(field: str, found: Any, wanted: Any) -> bool:
    """Whether two values of a field are one; encoders by content, or by name where one of the files is not there.

    ``training.amp`` left to the machine counts as float32, as it does for a run's identity (`TrainingConfig`).
    ``encoder_precision`` left to the machine fits any: what it came to stands in the store, which is compared itself.
    """
    if field == "encoder_precision":
        return found == wanted or "auto" in (found, wanted)
    if field == "training.amp":
        return (found is True) == (wanted is True)
    if field != "encoder" or found == wanted:
        return found == wanted
    one, other = shown_encoder(str(found)), shown_encoder(str(wanted))
    if is_file(one) and is_file(other):
        return one == other
    return _CONTENT.sub("", one) == _CONTENT.sub("", other)


def plain_experiment(experiment: ExperimentConfig) -> dict[str, Any]:
    """Return the configuration as artefacts keep it."""
    return to_plain(replace(experiment, encoder=shown_encoder(experiment.encoder)))


@functools.lru_cache(maxsize=8)
def _sha256(path: str, _state: tuple[int, int, int]) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
