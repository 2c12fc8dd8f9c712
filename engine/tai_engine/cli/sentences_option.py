"""``--sentences`` of `tai tune`: a file of sentences becomes a labelled store beside what is made of it."""

from __future__ import annotations

from pathlib import Path

from tai_engine.caching.texts import cache_corpus
from tai_engine.cli.cache_output import show
from tai_engine.cli.output import progress_bar, remarks
from tai_engine.encoders import Encoder
from tai_engine.sentences.built_in import BUILT_IN, built_in_captions
from tai_engine.sentences.corpus import CorpusOptions, LabelledCorpus, published_templates
from tai_engine.store import FeatureStore
from tai_engine.vocabulary import Vocabulary


def cache_sentences_of(sentences: Path, words: Vocabulary, encoder: Encoder, out: Path) -> FeatureStore:
    """The store of the sentences that name a class, made or gone on with; says what the classes have to learn from.

    It lies beside ``out``, with ``.sentences.zarr`` added to its name.

    Raises:
        UserError: as `LabelledCorpus` and `cache_corpus`.
    """
    place = out.with_name(out.name + ".sentences.zarr")
    file = built_in_captions() if str(sentences) == BUILT_IN else sentences
    corpus = LabelledCorpus(file, words, CorpusOptions(templates=words.templates or published_templates()))
    with progress_bar("Encoding sentences") as bar:
        report = cache_corpus(corpus, encoder, place, progress=show(bar, place))
    remarks.print(
        f"{corpus.report.kept:,} of {corpus.report.read:,} sentences name a class; {report.done:,} were encoded, "
        f"{report.skipped:,} were in {place} already."
    )
    for warning in corpus.report.warnings():
        remarks.print(warning, style="yellow")
    return FeatureStore.open(str(place))
