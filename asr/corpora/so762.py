"""so762: read English of Mandarin speakers in TIMIT's tree, with automatic alignments.

The adult speakers of speechocean762 (Zhang et al., Interspeech 2021), as ``.flac`` or unpacked into
SPHERE ``.WAV``. Its lexicon stays at ROOT/lexicon.txt.
"""

from __future__ import annotations

from pathlib import Path

from asr.corpora.audit import Corpus, Track
from asr.corpora.tree import load_tree

#: Utterances, and phones without the silences h# and pau, of each set; from the corpus's README.
EXPECTED = {"train": (1133, 23839), "dev": (114, 2373), "test": (669, 14637)}


def load_so762(root: Path, track: Track) -> Corpus:
    """Load train, dev and test; a set that is not as published is told in the audit.

    Raises:
        InputError: no such tree, or a speaker in two sets.
    """
    corpus = load_tree(root, track)
    for name, (n_utterances, n_phones) in EXPECTED.items():
        utterances = corpus.sets.get(name, [])
        phones = [p for u in utterances for p in u.phones or () if p.label not in ("h#", "pau")]
        found = (len(utterances), len(phones))
        if found != (n_utterances, n_phones):
            corpus.audit.deviations.append(
                f"{name}: {found[0]} utterances with {found[1]} phones besides silences, "
                f"so762 has {n_utterances} with {n_phones}"
            )
    return corpus
