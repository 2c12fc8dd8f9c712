"""All systems side by side: what needs no labelled picture, what learns from few, and both together.

    python -m tai_benchmarks.systems_table [--parts label-free few-labels real-clip voc] [--work FOLDER] [--seeds 1 2 3]

``label-free``: the model 'photos' on its 152 photographs of COCO, sentences from the captions that come with it.
``few-labels``: the same photographs in halves, one to learn from and one to test on, a split for each seed.
``real-clip`` and ``voc``: real CLIP vectors of photographs and the TaI-DPT authors' scores, if ``TAI_DATA`` names their
folder; there is no text tower for these, so that what needs one is left out.

Mean average precision in percent, every score standardised per picture unless it is said; differences with their 95 %
interval over the pictures (paired bootstrap). Settings are the published ones, halves, and those of the model; which
form three of the label-free ways have was fixed with a look at the 152 photographs (benchmarks/results/systems.md).
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from tai_benchmarks.embedded_photographs import Photographs, Scores
from tai_benchmarks.head_recipes import RECIPES, linear_head
from tai_benchmarks.vectors_only import VectorsOnly
from tai_engine.evaluation.bootstrap import compare
from tai_engine.evaluation.measures import mean_average_precision
from tai_engine.evaluation.truth import Truth
from tai_engine.label_free.compound import with_compound_prompts
from tai_engine.label_free.patch_gaussians import with_patch_gaussians
from tai_engine.label_free.sentence_means import with_sentence_means
from tai_engine.prompts.prompt_set import PromptSet, zero_shot_prompts
from tai_engine.tagging.normalisation import normalise
from tai_engine.tagging.scoring import SCORES
from tai_engine.tuning import TrainingPictures, TuningConfig
from tai_engine.vocabulary import imagenet_templates

PARTS = ("label-free", "few-labels", "real-clip", "voc")
SHOTS, KNOWN = (1, 5, 16), (0.1, 0.5, 1.0)
FEW_SHOT_RATIO, PARTIAL_RATIO = 0.6, 0.9


def mean_precision(scores: Scores, labels: NDArray[np.int8]) -> float:
    """mAP in percent."""
    return 100 * mean_average_precision(scores, labels).mean


def difference(first: Scores, second: Scores, labels: NDArray[np.int8]) -> str:
    """Second minus first, with its interval."""
    found = compare(first, second, labels).difference
    return f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def scaled_mean(first: Scores, second: Scores, ratio: float) -> Scores:
    """As `tai ensemble`: each scaled to 0 to 1 over the whole matrix, then their mean."""
    one, two = ((s - s.min()) / (s.max() - s.min()) for s in (first, second))
    return np.asarray((1 - ratio) * one + ratio * two)


def label_free(photographs: Photographs, seeds: Sequence[int], remark: Callable[[str], None]) -> Iterator[str]:
    """A line for each way that needs no labelled picture."""
    encoder, words = photographs.encoder, photographs.vocabulary
    labels = photographs.truth.labels
    plain = zero_shot_prompts(encoder, words)
    base = {which: photographs.scores(plain, which) for which in SCORES}
    remark("sentences")
    moved = with_sentence_means(plain, photographs.sentences)
    coarse, holds = photographs.written_sentences()
    heads = {name: [linear_head(plain.global_vectors, coarse, holds, name, seed) for seed in seeds] for name in RECIPES}
    remark("compound prompts")
    compound = with_compound_prompts(plain, encoder, words)
    tuned = []
    for seed in seeds:
        remark(f"tuning on sentences, seed {seed}")
        tuned.append(photographs.from_sentences(seed))

    def patches(prompts: PromptSet) -> PromptSet:
        return with_patch_gaussians(prompts, photographs.store)

    def headed(vectors: Tensor) -> PromptSet:
        return replace(plain, global_vectors=vectors, local_vectors=vectors)

    ways: list[tuple[str, list[PromptSet]]] = [
        ("zero-shot CLIP (coarse), CLIP-DPT (merged)", [plain]),
        ("80 templates", [zero_shot_prompts(encoder, words, imagenet_templates())]),
        ("compound prompts", [compound]),
        ("sentence means", [moved]),
        ("patches of the collection", [patches(plain)]),
        ("sentence means, patches", [patches(moved)]),
        ("linear head on sentences, published", [headed(one) for one in heads["published"]]),
        ("linear head on sentences, cosine", [headed(one) for one in heads["cosine"]]),
        ("TaI (coarse), TaI-DPT (merged)", tuned),
        ("TaI-DPT, sentence means", [with_sentence_means(one, photographs.sentences) for one in tuned]),
        ("TaI-DPT, patches", [patches(one) for one in tuned]),
    ]
    yield "| 152 photographs, 78 classes | coarse | fine | merged | merged, to zero-shot's | coarse, to zero-shot's |"
    yield "|---|---|---|---|---|---|"
    for name, sets in ways:
        found = {which: [photographs.scores(one, which) for one in sets] for which in SCORES}
        cells = [_over_seeds([mean_precision(one, labels) for one in found[which]]) for which in SCORES]
        # The mean over seeds of a score is one system more; its interval says what the seeds have in common.
        told = [difference(base[w], np.mean(found[w], axis=0), labels) for w in ("merged", "coarse")]
        yield f"| {name} | {' | '.join([*cells, *(told if sets != [plain] else ['', ''])])} |"
    for name, sets in (("sentence means", [moved]), ("TaI-DPT", tuned)):
        for other, vectors in (
            ("compound prompts", [compound]),
            ("linear head, cosine", [headed(one) for one in heads["cosine"]]),
        ):
            second = np.mean([photographs.scores(one, "coarse") for one in vectors], axis=0)
            first = np.mean([photographs.scores(one, "merged") for one in sets], axis=0)
            both = scaled_mean(first, second, 0.5)
            value, told_both = mean_precision(both, labels), difference(base["merged"], both, labels)
            yield f"| {name} (merged) with {other} (coarse), ensemble r = 0.5 | | | {value:.1f} | {told_both} | |"


def few_labels(photographs: Photographs, seeds: Sequence[int], remark: Callable[[str], None]) -> Iterator[str]:
    """A line for each system that learns from labelled photographs, alone and with prompts from sentences."""
    plain = zero_shot_prompts(photographs.encoder, photographs.vocabulary)
    cases: list[tuple[str, str, dict[str, Any], float]] = [
        *((f"CoOp, {n} shot{'s' * (n > 1)}", "coop", {"shots": n}, FEW_SHOT_RATIO) for n in SHOTS),
        *((f"DualCoOp, {100 * s:.0f} % of labels", "dualcoop", {"known": s}, PARTIAL_RATIO) for s in KNOWN),
    ]
    rows: dict[str, list[tuple[float, str]]] = {}
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(len(photographs.truth))
        train, test = np.array_split(order, 2)
        labels = photographs.truth.labels[test]
        truth = photographs.truth
        part = Truth(tuple(truth.ids[n] for n in train), truth.class_names, truth.labels[train])
        from_text = photographs.scores(photographs.from_sentences(seed), "merged")[test]
        bases = {"zero-shot": photographs.scores(plain, "merged")[test], "TaI-DPT": from_text}
        for name, scores in bases.items():
            rows.setdefault(name, []).append((mean_precision(scores, labels), ""))
        for name, system, drawn, ratio in cases:
            remark(f"{name}, split {seed}")
            config = TuningConfig.of_system(system, seed=seed, **drawn)
            source = TrainingPictures(photographs.store, part, seed=seed, **drawn)
            slug = f"{system}-{'-'.join(f'{k}{v}' for k, v in drawn.items())}-{seed}"
            prompts = photographs.tuned(slug, source, config, "a photo of a")
            alone = photographs.scores(prompts, "merged")[test]
            both = scaled_mean(from_text, alone, ratio)
            for title, scores in ((name, alone), (f"{name}, with TaI-DPT (r = {ratio:g})", both)):
                told = difference(from_text, scores, labels)
                rows.setdefault(title, []).append((mean_precision(scores, labels), told))
    yield f"| 76 photographs to learn from, 76 to test on, {len(seeds)} splits | merged | to TaI-DPT's, a split each |"
    yield "|---|---|---|"
    for name, found in rows.items():
        yield f"| {name} | {_over_seeds([value for value, _ in found])} | {', '.join(t for _, t in found if t)} |"


def real_clip(data: Path, seeds: Sequence[int]) -> Iterator[str]:
    """A line for each way on real CLIP ViT-B/32 vectors of 489 photographs; coarse only."""
    found = VectorsOnly.read(data / "real_clip_vitb32.npz")
    pictures, sentences, holds, classes = found.pictures, found.sentences, found.labels, found.names
    kept = (found.truth == 1).sum(axis=0) >= 3
    labels = found.truth[:, kept]

    def scores(vectors: Tensor, how: str = "standard") -> Scores:
        return normalise(100 * pictures @ vectors.T, how, 100.0).numpy()[:, kept]

    means = holds.float().T @ sentences - holds.sum(dim=0)[:, None] * sentences.mean(dim=0)
    moved = normalize(normalize(classes - classes.mean(dim=0), dim=1) + normalize(means, dim=1), dim=1)
    heads = {name: [linear_head(classes, sentences, holds, name, seed) for seed in seeds] for name in RECIPES}
    raw = scores(classes, "none")
    ways: list[tuple[str, list[Scores]]] = [
        ("zero-shot, raw", [raw]),
        *((f"zero-shot, {how}", [scores(classes, how)]) for how in ("centre", "standard", "softmax")),
        ("sentence means", [scores(moved)]),
        *((f"linear head on sentences, {name}", [scores(one) for one in heads[name]]) for name in RECIPES),
        (
            "zero-shot and linear head (cosine), half each",
            [(scores(classes) + scores(one)) / 2 for one in heads["cosine"]],
        ),
    ]
    title = f"{len(pictures)} photographs, {kept.sum()} classes, {len(sentences)} sentences"
    yield f"| {title} | mAP | to raw zero-shot | to standardised zero-shot |"
    yield "|---|---|---|---|"
    base = scores(classes)
    for name, of_seeds in ways:
        mean = np.mean(of_seeds, axis=0)
        told = [difference(one, mean, labels) if one is not mean else "" for one in (raw, base)]
        yield f"| {name} | {_over_seeds([mean_precision(one, labels) for one in of_seeds])} | {' | '.join(told)} |"


def voc(data: Path) -> Iterator[str]:
    """The published VOC2007 scores; the factor of the softmax is also chosen on one half and used on the other."""
    with np.load(data / "voc2007_test_taidpt_rn50_scores.npz", allow_pickle=False) as file:
        labels = file["labels"].astype(np.int8)
        merged = ((file["a"] + file["b"]) / 2).astype(np.float32)

    def softmax(rows: Scores, factor: float) -> Scores:
        return torch.from_numpy(rows * factor).softmax(dim=1).numpy()

    yield f"| {len(labels)} pictures of VOC2007 test, TaI-DPT's published scores | mAP | to merged |"
    yield "|---|---|---|"
    halves = [np.arange(len(labels)) % 2 == n for n in range(2)]
    chosen, factors = np.empty_like(merged), []
    for here, there in itertools.permutations(halves):
        found = [(mean_precision(softmax(merged[here], f), labels[here]), f) for f in (1, 2, 3, 4, 5, 6, 8, 10)]
        factors.append(max(found)[1])
        chosen[there] = softmax(merged[there], factors[-1])
    ways = [
        ("merged", merged),
        ("merged, standard", normalise(torch.from_numpy(merged), "standard").numpy()),
        ("merged, softmax", normalise(torch.from_numpy(merged), "softmax").numpy()),
        (f"merged, softmax with the factor that the other half chose ({factors[0]}, {factors[1]})", chosen),
    ]
    for name, scores in ways:
        told = "" if scores is merged else difference(merged, scores, labels)
        yield f"| {name} | {mean_precision(scores, labels):.2f} | {told} |"


def _over_seeds(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f}"


def main(arguments: list[str] | None = None) -> int:
    """Measure and print the tables as Markdown."""
    parser = argparse.ArgumentParser(
        prog="python -m tai_benchmarks.systems_table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--work", type=Path, help="keep sentences and runs in this folder (default: a temporary one)")
    options = parser.parse_args(arguments)
    data = os.environ.get("TAI_DATA")

    def remark(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        photographs = Photographs.open(work) if {"label-free", "few-labels"} & set(options.parts) else None
        for part in options.parts:
            if part in ("real-clip", "voc"):
                if data is None:
                    remark(f"{part} is left out: TAI_DATA names no folder of outside data")
                    continue
                lines = real_clip(Path(data), options.seeds) if part == "real-clip" else voc(Path(data))
            else:
                assert photographs is not None
                measure = label_free if part == "label-free" else few_labels
                lines = measure(photographs, options.seeds, remark)
            for line in lines:
                print(line, flush=True)
            print(flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
