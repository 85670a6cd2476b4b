"""What a decoder may be told: each setting with its bounds, meaning and default; and changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from asr.system.settings import check, setting

DECODERS = ("greedy", "beam", "viterbi")
#: Wider beams find nothing more, and are memory for each utterance that is searched.
MOST_BEAM = 10_000
#: Any heavier, and nothing else counts.
MOST_WEIGHT = 1000.0


@dataclass
class DecoderConfig:
    """Which search, and its weights, in natural logarithms.

    The language model over labels has lm_weight and bonus; that over words, where the words of a
    lexicon are searched, word_lm_weight, word_bonus and word_prior_weight: how frequent labels are,
    lexicon and language model know better than the net.
    """

    name: str = setting("greedy", "the search", choices=DECODERS)
    beam: int = setting(50, "prefixes that beam search keeps", 1, MOST_BEAM)
    nbest: int = setting(1, "hypotheses returned, at most", 1, MOST_BEAM)
    lm_weight: float = setting(0.0, "of the language model over labels", 0, MOST_WEIGHT)
    bonus: float = setting(0.0, "for each label", -MOST_WEIGHT, MOST_WEIGHT)
    blank_penalty: float = setting(
        0.0, "of CTC's blank, where no words of a lexicon are searched", 0, MOST_WEIGHT
    )
    lexicon: bool = setting(False, "search words of the model's lexicon")
    word_lm_weight: float = setting(0.0, "of the language model over words", 0, MOST_WEIGHT)
    word_bonus: float = setting(0.0, "for each word", -MOST_WEIGHT, MOST_WEIGHT)
    word_prior_weight: float = setting(
        0.0,
        "of the labels' frequencies, taken out of what words are searched in",
        0,
        MOST_WEIGHT,
    )
    unknown_penalty: float | None = setting(
        None, "allows words outside the lexicon at that price", -MOST_WEIGHT, MOST_WEIGHT
    )
    rescore_weight: float = setting(
        0.0, "of a second language model, which scores the best again", 0, MOST_WEIGHT
    )
    rescore_bonus: float = setting(0.0, "for each of its tokens", -MOST_WEIGHT, MOST_WEIGHT)
    rescore_share: float = setting(
        0.5, "of the second language model in a mixture with the first", 0, 1
    )
    rescore_nbest: int = setting(50, "hypotheses that are scored again", 1, MOST_BEAM)
    prior_weight: float = setting(
        0.5, "of the labels' frequencies, taken out in Viterbi decoding", 0, MOST_WEIGHT
    )
    transition_weight: float = setting(
        1.0, "of the labels' order, in Viterbi decoding", 0, MOST_WEIGHT
    )

    def __post_init__(self) -> None:
        check(self, "decoder")


@dataclass(frozen=True)
class DecodingOptions:
    """What a user changes of a model's decoder; ``None`` leaves what the model directory says.

    decoder: greedy, beam or viterbi. lexicon: a file; ``model`` for the model's own; ``none``;
    ``cmudict`` (phones) or ``lm`` (characters) for the words of the language model. lm: an ARPA
    file or a neural model's folder, over words where words of a lexicon are searched, else over
    labels; or ``none``. lm_weight and bonus: of that search. unknown: the price of a word outside
    the lexicon, in natural logarithms. hotword: ``word:boost``. rescore: a language model for a
    second pass, or ``none``. pronounced: a file of pronunciations of words that a lexicon lacks,
    read where it is there, and written with those that are guessed by letters; ``none`` guesses
    none.
    """

    decoder: str | None = None
    beam: int | None = None
    nbest: int | None = None
    lexicon: str | Path | None = None
    lm: str | Path | None = None
    lm_weight: float | None = None
    bonus: float | None = None
    unknown: float | None = None
    hotword: Sequence[str] = ()
    rescore: str | Path | None = None
    rescore_weight: float | None = None
    pronounced: str | Path | None = None

    @property
    def given(self) -> list[str]:
        """The options that change anything, as the command line calls them."""
        changed = [f.name for f in fields(self) if getattr(self, f.name) not in (None, ())]
        return ["--" + name.replace("_", "-") for name in changed]
