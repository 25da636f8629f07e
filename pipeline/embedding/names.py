"""An encoder's whole name: its weights, its read-out and its projection, in one word that is parsed here alone.

``<name or path>[+last|+mean|+layers][+spread][+to<width>]``, in this order: ``ppg_gpt_1m_long+layers+spread+to256``.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from models.encoders.readout_names import KINDS, SPREAD
from pipeline.foundation.errors import ConfigError

ALLOWED = (
    f"after the name or path of a PPG-GPT may stand {', '.join(f'+{kind}' for kind in KINDS)} (one of them; none: "
    f"+{KINDS[0]}), then {SPREAD}, then +to and a width, as in ppg_gpt_1m_long+layers{SPREAD}+to256"
)
WITHOUT_READOUTS = ("papagei_s", "pulse_ppg", "pulse_features")
"""Encoders, or what stands before the ``:`` of their names, that are read in one way alone."""
_WHOLE = re.compile(r"(.*?)((?:\+[^+/.@]*)*)", re.DOTALL)
"""A word has no ``@``: artefacts call weights given by path ``<file>@<content>`` (``stages.encoder_files``)."""
_WORDS = re.compile(rf"(?:\+({'|'.join(KINDS)})(\{SPREAD})?)?(?:\+to([1-9]\d*))?")


@dataclass(frozen=True, kw_only=True)
class EncoderName:
    """The parts of an encoder's name.

    Attributes
    ----------
    weights : name of shipped, random or published weights, or the path of a checkpoint
    readout : one of ``models.encoders.readouts.READOUTS``
    width : of the fixed projection after the read-out; None without one
    """

    weights: str
    readout: str = KINDS[0]
    width: int | None = None

    @classmethod
    def parse(cls, text: str) -> "EncoderName":
        """Take a name apart. What is a file as it stands is a path, whatever its name looks like.

        Raises
        ------
        ConfigError : a word that is none, stands twice, out of its order, or after an encoder that has no read-outs
        """
        whole = _WHOLE.fullmatch(text)
        assert whole is not None
        words = _WORDS.fullmatch(whole[2])
        if words is None:
            if Path(text.partition(":")[2] or text).is_file():
                return cls(weights=text)
            raise ConfigError(f"encoder {text!r}: {_complaint(whole[2])}; {ALLOWED}")
        if whole[2] and whole[1].partition(":")[0] in WITHOUT_READOUTS:
            raise ConfigError(f"encoder {text!r}: {whole[2]} is for PPG-GPT alone; {ALLOWED}")
        return cls(
            weights=whole[1],
            readout=f"{words[1] or KINDS[0]}{words[2] or ''}",
            width=int(words[3]) if words[3] else None,
        )

    @property
    def words(self) -> str:
        """What follows the weights, in one spelling; nothing for the paper's read-out."""
        readout = "" if self.readout == KINDS[0] else f"+{self.readout}"
        return readout if self.width is None else f"{readout}+to{self.width}"


def file_name(encoder: str) -> str:
    """Return what stands for an encoder, a name or path, in names of files and folders."""
    return re.sub(r"[^\w.+-]+", "_", Path(encoder).name)


def _complaint(text: str) -> str:
    words = text.split("+")[1:]
    for place, word in enumerate(words):
        if word in words[:place]:
            return f"+{word} stands twice"
        if word not in (*KINDS, SPREAD[1:]) and not re.fullmatch(r"to[1-9]\d*", word):
            return f"there is no +{word}"
    return f"{text} is not in order"
