"""Models as folders that sherpa-onnx loads, for C++, Android, iOS, JavaScript and the rest.

Its loader of Zipformer CTC models wants nothing of a net but its shape: log-mel (B, T, 80) and
lengths in, log-probabilities and lengths out, a frame every 40 ms. Log-mel is that of
kaldi-native-fbank with its defaults, of samples in [-1, 1]; normalisation and stacking are in the
graph. (k2-fsa/sherpa-onnx, csrc/offline-zipformer-ctc-model.cc, offline-stream.cc, features.h.)
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from asr.audio.features import FeatureConfig
from asr.decode.graph import word_graph
from asr.errors import InputError
from asr.labels import BLANK_SYMBOL, SPACE, Labels
from asr.model.bundle import Bundle, save_lexicon
from asr.model.onnx import check_own, from_log_mel
from asr.model.onnx_graph import Graph, log_probs_output
from asr.system.files import write_folder_aside, write_text

log = logging.getLogger(__name__)

MODEL, TOKENS = "model.onnx", "tokens.txt"
GRAPH, WORDS = "graph.fst", "words.txt"
#: What the loader takes a frame of the output for, in frames of log-mel.
FACTOR = 4
#: What it computes; the settings that are not here are ours.
FEATURES = FeatureConfig(log_mel="kaldi", max_hz=7600.0, stack=FACTOR)
THEIRS = "log_mel sample_rate n_fft win_length hop_length n_mels min_hz max_hz".split()
#: How its reader knows the blank, and what it shows as a space.
BLANK, WORD_BEGIN = "<blk>", "▁"


def write_sherpa(bundle: Bundle, folder: Path) -> None:
    """Write ``model.onnx`` and ``tokens.txt``, and where there is a lexicon that, and its words as
    a graph.

    Raises:
        InputError: the model has other features or frames than sherpa-onnx gives nets, or goes
            along with speech, or ``folder`` is there already.
    """
    _check(bundle)
    graph = Graph()
    x = graph.input("x", np.float32, "N", "T", bundle.features.n_mels)
    lens = graph.input("x_lens", np.int64, "N")
    log_probs, lens = from_log_mel(graph, bundle, x, lens)
    log_probs_output(graph, bundle, log_probs)
    graph.output("log_probs_len", lens, np.int64, "N")
    about = {"model_type": "zipformer2_ctc", "model_author": "carousel-asr", "version": "1"}
    with write_folder_aside(folder) as aside:
        (aside / MODEL).write_bytes(graph.model(about).SerializeToString())
        write_text(aside / TOKENS, _tokens(bundle.labels))
        save_lexicon(aside, bundle)
        _save_graph(bundle, aside)


def _save_graph(bundle: Bundle, folder: Path) -> None:
    """Write what a decoder of graphs searches words in, where there is a lexicon, and their numbers
    in what it finds."""
    if bundle.lexicon is None:
        return
    decoder = bundle.make_decoder(replace(bundle.decoder, name="beam", lexicon=True))
    if decoder.fuses:
        log.warning(
            "%s is left out: it takes an n-gram, and the language model over words is neural", GRAPH
        )
        return
    word_graph(decoder).write(folder / GRAPH)
    numbered = ["<eps>", *bundle.lexicon.words]
    write_text(folder / WORDS, "".join(f"{word} {i}\n" for i, word in enumerate(numbered)))


def _tokens(labels: Labels) -> str:
    """A symbol and its number a line; what is not a letter of a word begins one of its own."""
    begin = "" if labels.unit == "char" else WORD_BEGIN
    known = {BLANK_SYMBOL: BLANK, SPACE: WORD_BEGIN}
    named = [known.get(symbol, begin + symbol) for symbol in labels.symbols]
    return "".join(f"{name} {i}\n" for i, name in enumerate(named))


def _check(bundle: Bundle) -> None:
    config = bundle.features
    check_own(bundle)
    if any(a.chunk or a.future for a in (bundle.architecture, *bundle.others)):
        raise InputError(
            "export: sherpa-onnx's loaders of live CTC models know the states of their own nets "
            "alone; export one that hears utterances as a whole (recipe so762/ctc_kaldi.yaml)"
        )
    if bundle.criterion != "ctc":
        raise InputError(f"export: sherpa-onnx decodes CTC, and this model is {bundle.criterion}")
    for name in THEIRS:
        own, wanted = getattr(config, name), getattr(FEATURES, name)
        if own != wanted:
            raise InputError(
                f"export: features.{name}={own}: sherpa-onnx computes {wanted}; train with "
                "features=kaldi80"
            )
    if bundle.clock.factor != FACTOR:
        raise InputError(
            f"export: a frame of the model is {bundle.clock.factor} of log-mel: sherpa-onnx takes "
            f"it for {FACTOR}, and its times would be wrong; train with features=kaldi80"
        )
