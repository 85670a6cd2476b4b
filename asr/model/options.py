"""What a user changes of a model's decoder: another search, lexicon, language model or weight."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from asr.decode.config import DecodingOptions
from asr.decode.lexicon import Lexicon, Pronounce, parse_hotwords
from asr.decode.pronunciations import MOST_TOLD
from asr.errors import InputError
from asr.g2p.unknown import pronouncing
from asr.lm.ngram import NGram
from asr.lm.query import LanguageModel, load_lm
from asr.model.bundle import Bundle

log = logging.getLogger(__name__)

#: The weight of a language model that is new to a model, where nobody named one.
UNTUNED_WEIGHT = 0.5
#: So much of the smaller of two vocabularies must be in the other one too.
LEAST_COMMON = 0.5

Hotwords = Mapping[tuple[str, ...], float]
Tell = Callable[[str], None]


def fitted(bundle: Bundle, options: DecodingOptions, tell: Tell) -> tuple[Bundle, Hotwords]:
    """The model with the decoder, lexicon and language models that ``options`` ask for.

    tell: gets a line for what a user may not expect: a search that was chosen for them, a weight
    that was never tuned, labels that a language model does not know.

    Raises:
        InputError: an option that the decoder has no use for, a file that cannot be read, or a
            language model, lexicon or hotword that does not fit the model.
    """
    config = replace(bundle.decoder, name=_search(bundle, options, tell))
    bundle = replace(bundle, decoder=config)
    if options.nbest is not None or config.name == "greedy":
        config = replace(config, nbest=options.nbest or 1)
    if options.beam is not None:
        config = replace(config, beam=options.beam)
    if config.name != "beam":
        return replace(bundle, decoder=config), {}

    lm = None if options.lm in (None, "none") else load_lm(Path(options.lm))
    bundle = _with_lexicon(replace(bundle, decoder=config), options, lm, tell)
    if lm is not None:
        bundle = _with_lm(bundle, options, lm, tell)
    bundle = _with_rescoring(_with_weights(bundle, options, lm, tell), options, tell)
    if not options.hotword:
        return bundle, {}
    return with_hotwords(bundle, options.hotword, options.pronounced, tell)


def with_hotwords(
    bundle: Bundle,
    hotword: Sequence[str],
    pronounced: str | Path | None = None,
    tell: Tell = log.info,
) -> tuple[Bundle, Hotwords]:
    """Hotwords as of `DecodingOptions`, and the model with a lexicon that has their words.

    pronounced: as of `DecodingOptions`.

    Raises:
        InputError: no words are searched, or a hotword is not what it may be.
    """
    config = bundle.decoder
    if config.name != "beam" or not config.lexicon or bundle.lexicon is None:
        raise InputError(
            f"--hotword {hotword[0]}: hotwords are boosted among the words of a lexicon: "
            "add --lexicon"
        )
    hotwords = parse_hotwords(hotword)
    guess = _guessing(bundle, pronounced, tell)
    admitted = bundle.lexicon.admit(hotwords, bundle.labels, bundle.label_config.fold, guess)
    return replace(bundle, lexicon=admitted), hotwords


def _guessing(bundle: Bundle, pronounced: str | Path | None, tell: Tell) -> Pronounce | None:
    """What pronounces words that a lexicon lacks, where the model has phones and nobody forbids."""
    if bundle.labels.unit != "phone" or pronounced == "none":
        return None
    path = Path(pronounced) if pronounced is not None else None
    return pronouncing(bundle.labels, bundle.label_config.fold, path, tell)


def _search(bundle: Bundle, options: DecodingOptions, tell: Tell) -> str:
    """The decoder's name; beam search where the options need one and nobody said otherwise."""
    name = options.decoder or bundle.decoder.name
    if name == "viterbi" and bundle.criterion != "framewise":
        raise InputError(
            "decoder viterbi needs a model trained framewise; this one is for greedy or beam"
        )
    off = [f"--{name}" for name in ("lexicon", "lm", "rescore") if getattr(options, name) == "none"]
    needing = [o for o in options.given if o not in ("--decoder", "--nbest", "--pronounced", *off)]
    if name == "viterbi" and needing:
        raise InputError(
            f"{needing[0]} is for beam search: this framewise model is decoded by viterbi, "
            "whose weights asr tune finds"
        )
    if options.nbest is not None and options.nbest > 1:
        needing.append("--nbest")
    if name != "greedy" or not needing:
        return name
    if options.decoder == "greedy":
        raise InputError(
            f"{needing[0]} is for --decoder beam: greedy takes the best label of each frame"
        )
    tell(f"{needing[0]} needs a search: decoding with beam instead of greedy")
    return "beam"


def _with_lexicon(
    bundle: Bundle, options: DecodingOptions, lm: LanguageModel | None, tell: Tell
) -> Bundle:
    """Decide whether words are searched, and which."""
    labels, folding = bundle.labels, bundle.label_config.fold
    guess = _guessing(bundle, options.pronounced, tell)
    wanted = options.lexicon
    if wanted is None:
        searches = bundle.decoder.lexicon
        if searches and lm is not None and _fits(lm, labels.symbols[1:]):
            tell(f"{options.lm} is over {labels.unit}s: searching these, without the lexicon")
            searches = False
        return replace(bundle, decoder=replace(bundle.decoder, lexicon=searches))
    if wanted == "none":
        return replace(bundle, decoder=replace(bundle.decoder, lexicon=False))
    if labels.unit == "word":
        raise InputError(f"--lexicon {wanted}: the labels of this model are words already")
    if wanted == "model":
        lexicon = bundle.lexicon
        if lexicon is None:
            raise InputError("--lexicon model: the model directory holds no lexicon.txt")
    elif wanted in ("cmudict", "lm"):
        if (wanted == "cmudict") != (labels.unit == "phone"):
            right = "cmudict" if labels.unit == "phone" else "lm"
            raise InputError(
                f"--lexicon {wanted}: this model's labels are {labels.unit}s; use --lexicon {right}"
            )
        words = lm or bundle.word_lm
        if words is None:
            raise InputError(f"--lexicon {wanted} takes its words from a language model: add --lm")
        if labels.unit == "phone":
            lexicon = Lexicon.cmudict(words.tokens[3:], labels, folding, guess)
        else:
            lexicon = Lexicon.spell(words.tokens[3:], labels)
    else:
        lexicon = Lexicon.read(Path(wanted), labels, folding, guess)
        if isinstance(words := lm or bundle.word_lm, NGram):
            lexicon = lexicon.in_case_of(words)
        if guess and lm is not None and _fits(lm, lexicon.words):
            lacking = [word for word in lm.tokens[3:] if word not in lexicon.ids]
            lexicon = lexicon.with_entries(guess(lacking) if lacking else [])
    return replace(bundle, lexicon=lexicon, decoder=replace(bundle.decoder, lexicon=True))


def _with_lm(bundle: Bundle, options: DecodingOptions, lm: LanguageModel, tell: Tell) -> Bundle:
    """Put the language model where the search looks for it."""
    if bundle.decoder.lexicon and bundle.lexicon is not None:
        _check_fit(lm, options.lm, bundle.lexicon.words, "lexicon's words", bundle)
        if options.lexicon not in ("cmudict", "lm"):
            _tell_lacking(lm, options.lm, bundle.lexicon, tell)
        return replace(bundle, word_lm=lm)
    symbols = bundle.labels.symbols[1:]
    _check_fit(lm, options.lm, symbols, f"model's {bundle.labels.unit}s", bundle)
    strange = [symbol for symbol in symbols if not lm.id(symbol)]
    if strange:
        tell(f"{options.lm}: does not know {' '.join(strange)}: scored as <unk>")
    return replace(bundle, label_lm=lm)


def _tell_lacking(lm: LanguageModel, path: object, lexicon: Lexicon, tell: Tell) -> None:
    """Tell which words the language model expects and the search cannot find."""
    lacking = [token for token in lm.tokens[3:] if token not in lexicon.ids]
    if not lacking:
        return
    share = ""
    if isinstance(lm, NGram):
        ids = [lm.id(token) for token in lacking]
        share = f" ({(10 ** lm.trie.log10_prob[1 + np.array(ids)]).sum():.1%} of what it expects)"
    tell(
        f"{path}: {len(lacking)} of its {len(lm.tokens) - 3} words{share} are not in the "
        f"lexicon and never found: {', '.join(lacking[:MOST_TOLD])}"
        + (", ..." if len(lacking) > MOST_TOLD else "")
    )


def _with_weights(
    bundle: Bundle, options: DecodingOptions, lm: LanguageModel | None, tell: Tell
) -> Bundle:
    """Set what the first pass' language model and words count."""
    config = bundle.decoder
    words = config.lexicon
    over = "words" if words else f"{bundle.labels.unit}s"
    weight, bonus = ("word_lm_weight", "word_bonus") if words else ("lm_weight", "bonus")
    changed: dict[str, Any] = {}
    if options.lm_weight is not None:
        if options.lm == "none" or (bundle.word_lm if words else bundle.label_lm) is None:
            raise InputError(
                f"--lm-weight {options.lm_weight:g}: there is no language model over {over} to "
                "weigh; name one with --lm"
            )
        changed[weight] = options.lm_weight
    elif options.lm == "none":
        changed |= {weight: 0.0, bonus: 0.0}  # the bonus was tuned along with the weight
    elif lm is not None and getattr(config, weight) == 0:
        tell(f"{options.lm}: never tuned, its weight is {UNTUNED_WEIGHT}: see asr tune")
        changed[weight] = UNTUNED_WEIGHT
    if options.bonus is not None:
        changed[bonus] = options.bonus
    if options.unknown is not None:
        if not words:
            raise InputError("--unknown is the price of words outside a lexicon: add --lexicon")
        changed["unknown_penalty"] = options.unknown
    return replace(bundle, decoder=replace(config, **changed))


def _with_rescoring(bundle: Bundle, options: DecodingOptions, tell: Tell) -> Bundle:
    """The second pass."""
    config = bundle.decoder
    if options.rescore == "none":
        return replace(bundle, rescore_lm=None, decoder=replace(config, rescore_weight=0.0))
    weight = options.rescore_weight
    if options.rescore is not None:
        lm = load_lm(Path(options.rescore))
        bundle = replace(bundle, rescore_lm=lm)
        labels, lexicon = bundle.labels, bundle.lexicon
        if not bundle.make_decoder(config).rescores_words:
            _check_fit(lm, options.rescore, labels.symbols[1:], f"model's {labels.unit}s", bundle)
        elif config.lexicon and lexicon is not None:
            _check_fit(lm, options.rescore, lexicon.words, "lexicon's words", bundle)
        if weight is None and config.rescore_weight == 0:
            tell(f"{options.rescore}: never tuned, its weight is {UNTUNED_WEIGHT}: see asr tune")
            weight = UNTUNED_WEIGHT
    elif weight is not None and bundle.rescore_lm is None:
        raise InputError("--rescore-weight: there is no second language model: add --rescore")
    if weight is None:
        return bundle
    return replace(bundle, decoder=replace(config, rescore_weight=weight))


def _fits(lm: LanguageModel, symbols: Sequence[str]) -> bool:
    common = sum(1 for symbol in symbols if lm.id(symbol))
    return common >= LEAST_COMMON * min(len(symbols), len(lm.tokens) - 3)


def _check_fit(
    lm: LanguageModel, path: object, symbols: Sequence[str], what: str, bundle: Bundle
) -> None:
    """Refuse a language model whose tokens are not those that the search will ask for.

    Raises:
        InputError: most are not; the line shows some of either, and tells what would help.
    """
    if _fits(lm, symbols):
        return
    tokens, names = lm.tokens[3:], set(symbols)
    line = (
        f"{path}: of this language model's {len(tokens)} tokens ({', '.join(tokens[:4])} ...) only "
        f"{len(names.intersection(tokens))} are among the {what} ({', '.join(symbols[:4])} ...)"
    )
    for case in (str.lower, str.upper):
        cased = {case(token) for token in tokens}
        if len(cased & names) >= LEAST_COMMON * min(len(cased), len(names)):
            raise InputError(f"{line}; in {case.__name__} case they would be: convert it")
    labels = bundle.labels
    if bundle.decoder.lexicon and _fits(lm, labels.symbols[1:]):
        raise InputError(f"{line}; it is over {labels.unit}s: use it without --lexicon")
    if not bundle.decoder.lexicon:
        line += "; if it is over words, add --lexicon"
    raise InputError(line)
