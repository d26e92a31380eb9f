"""Tells which stem of a song a file is, from names as separators, data sets and DAWs write them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from .errors import OptionError

MIX = "mix"
UNKNOWN = "unknown"  # in place of a role, where there has to be a word
#: What a stem may be to the model. Without the mix nothing else says what belongs to it.
ROLES = ("vocals", "drums", "bass", "guitar", "keys", "accompaniment", "other")
WHOLE_BAND = "accompaniment"
#: Stem: its usual names, in lower case and without digits and punctuation.
STEMS = {
    "vocals": "vocals vocal vox voc voice voices singer singing acapella acappella",
    "lead vocals": "lead vocals|lead vocal|lead vox|main vocals|main vocal|leadvox|lead voice|leadvocals",
    "backing vocals": "backing vocals|backing vocal|background vocals|backing vox|backingvocals|choir|bvs|bgv|"
    "harmonies",
    "drums": "drums|drum|drumkit|drum kit|beat|beats|kick|kick drum|bass drum|snare|snare drum|hihat|hi hat|toms|tom|"
    "cymbals|overheads|overhead|drum machine",
    "percussion": "percussion percussions perc",
    "bass": "bass|basses|bass guitar|electric bass|upright bass|double bass|contrabass|synth bass|bass synth|sub bass",
    "guitar": "guitar|guitars|gtr|acoustic guitar|electric guitar|lead guitar|rhythm guitar|acoustic guitars|"
    "electric guitars",
    "piano": "piano|pianos|grand piano|electric piano|rhodes|epiano",
    "keys": "keys|keyboard|keyboards|organ|other keys",
    "synth": "synth|synths|synthesizer|synthesiser|pad|pads|lead synth",
    "strings": "strings|bowed strings|violin|violins|viola|cello|orchestra",
    "wind": "wind|winds|brass|horns|horn|saxophone|sax|trumpet|trombone|flute|woodwinds",
    "plucked": "other plucked|plucked|banjo|mandolin|ukulele|harp",
    "other": "other others rest instruments fx",
    WHOLE_BAND: "accompaniment|instrumental|instrumentals|inst|backing|backing track|backingtrack|karaoke|no vocals|"
    "novocals|without vocals|minus vocals|no vox|minus one|band",
    MIX: "mixture|mix|mixdown|full mix|fullmix|master|original|song|full|full song",
}  # fmt: skip
#: The role of each stem of STEMS that is not one itself.
_ROLE_OF = {
    "lead vocals": "vocals", "backing vocals": "vocals", "percussion": "drums", "piano": "keys", "synth": "other",
    "strings": "other", "wind": "other", "plucked": "other",
}  # fmt: skip
_STEM_OF = {word: stem for stem, words in STEMS.items() for word in words.split("|" if "|" in words else " ")}
#: Words that may follow the stem's name, and are ignored.
_SUFFIX_WORDS = frozenset({
    "dry", "wet", "di", "amp", "in", "out", "l", "r", "left", "right", "top", "bottom", "stereo", "mono", "stem",
    "stems", "final", "take", "bus", "raw",
})  # fmt: skip
#: Separators write a stem's name in brackets, perhaps with a model's name behind: `1_song_(Vocals)_model.wav`.
_BRACKETS = re.compile(r"[(\[]([^()\[\]]*)[)\]]")


def is_vocal(stem: str) -> bool:
    """Whether a stem of STEMS is a vocal one."""
    return stem.endswith("vocals")


def stem_of(file_name: str) -> str | None:
    """Which stem of STEMS a file is, judging by its name. Case, digits and punctuation do not matter. None if unknown.

    A name in brackets counts first, the last one if there are several. Without, the whole name is tried, then its last
    two words, then the last: `My Song - No Vocals.wav` is accompaniment.
    """
    return _split(file_name)[0]


def role_of(*names: str) -> str | None:
    """The role, one of ROLES, by the first of these names of files or folders that says it; None if none does."""
    stems = filter(None, map(stem_of, names))
    return next((role for role in (_ROLE_OF.get(stem, stem) for stem in stems) if role in ROLES), None)


def check_role(role: str | None) -> str | None:
    """Returns a role of ROLES, or None if it is not known. Raises OptionError for anything else."""
    if role is not None and role not in ROLES:
        raise OptionError(f"role {role!r} is unknown; choose {', '.join(ROLES)}")
    return role


def song_of(path: Path) -> tuple[Path, str]:
    """The song a file belongs to: its folder, and its name without the stem's."""
    return path.parent, _split(path.name)[1]


def redundant_stems(stems: Sequence[str]) -> dict[str, str]:
    """Which of a song's stems are already in others, and in which, in words."""
    names = set(stems)
    redundant: dict[str, str] = {}
    if "vocals" in names:
        redundant |= dict.fromkeys(names & {"lead vocals", "backing vocals"}, "already in the vocals")
    if WHOLE_BAND in names:
        if names.issuperset(("drums", "bass", "other")):
            redundant[WHOLE_BAND] = "same as drums, bass and other"
        else:
            band = (stem for stem in names if stem != WHOLE_BAND and not is_vocal(stem))
            redundant |= dict.fromkeys(band, "already in the accompaniment")
    return redundant


def _split(file_name: str) -> tuple[str | None, str]:
    """The stem of a file name, and the rest of the name."""
    text = unicodedata.normalize("NFKD", Path(file_name).stem)
    for found in reversed(list(_BRACKETS.finditer(text))):
        stem = _STEM_OF.get(" ".join(_words(found[1])))
        if stem is not None:
            return stem, f"{text[: found.start()]}{text[found.end() :]}".casefold()
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    words = _words(text)
    while len(words) > 1 and words[-1] in _SUFFIX_WORDS and " ".join(words) not in _STEM_OF:
        words.pop()
    for count in (len(words), 2, 1):
        stem = _STEM_OF.get(" ".join(words[-count:]))
        if stem is not None:
            named = list(re.finditer(r"[\W\d_]*".join(words[-count:]), text.lower()))
            return stem, text[: named[-1].start()].casefold()
    return None, text


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[\W\d_]+", text.lower()) if word]
