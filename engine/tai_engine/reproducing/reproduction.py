"""A published row reproduced: data prepared, cached, prompts tuned, pictures tagged, and ours held beside the figure.

Everything is kept below one folder, so that a run that was stopped goes on::

    protocol.json         which protocol in which version made what is here
    pictures.jsonl        the list that was tested, as `tai cache images` reads it
    truth.jsonl           and its labels, as `tai evaluate` reads them
    pictures.zarr         features of the pictures
    sentences.zarr        and of the sentences
    seed-1/               prompts.safetensors, the run of tuning, tags.parquet
    labelled/             of protocols with partly labelled pictures, see `partial_labels`
    result.json           what came of it
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tai_engine.caching.texts import cache_sentences, label_spec
from tai_engine.datasets.labelled import LabelledPictures
from tai_engine.datasets.long_tail import long_tail_groups
from tai_engine.encoders import Encoder, cached_weights
from tai_engine.errors import ItemError, UserError
from tai_engine.evaluation.bootstrap import bootstrap_map
from tai_engine.evaluation.class_splits import ClassSplits, load_splits
from tai_engine.evaluation.draws import Interval
from tai_engine.evaluation.tag_evaluation import EvaluationRules, GroupEvaluation, evaluate_tags
from tai_engine.evaluation.truth import load_truth
from tai_engine.files import write_atomically
from tai_engine.json_documents import read_json
from tai_engine.reproducing.partial_labels import tag_by_labels, with_labels
from tai_engine.reproducing.picture_sets import TRAINING_LISTS, pictures_of, training_sentences, words_of
from tai_engine.reproducing.prepared import Progress, cache_pictures, load_model, shown, write_tables
from tai_engine.reproducing.row_protocol import Protocol
from tai_engine.store import FeatureStore
from tai_engine.tagging.batch_loop import tag_store
from tai_engine.tagging.tag_file import read_tag_file
from tai_engine.tuning import StepProgress, TuningTask, tune

_MOST_CLAIM_BYTES = 2**20

INTERVAL_DRAWS = 200
"""Of pictures, for the interval of the first seed: a dataset of 100,000 pictures takes a minute."""
CHECKPOINT = "The contexts are those of the last epoch; no label of a test picture was looked at before the evaluation."


@dataclass(frozen=True)
class SeedFigures:
    """One run.

    Attributes:
        seed: of the contexts and the order of sentences.
        map: from 0 to 1.
        groups: the same by groups of classes.
        held_out_map: of held-out sentences.
    """

    seed: int
    map: float
    groups: tuple[GroupEvaluation, ...]
    held_out_map: float | None


@dataclass(frozen=True)
class Reproduction:
    """What came of a protocol.

    Attributes:
        protocol: name; version and digest tell exactly which.
        version, digest: of its file.
        tested: the list of pictures, with its length.
        pictures, classes: how many were evaluated.
        sentences: tuned on, templates and held-out ones included.
        space_key: which weights.
        seeds: each run.
        map: the mean of their mAP, from 0 to 1.
        interval: of the first run, by draws of the pictures.
        published: in percent.
        source: of the published figure.
        remarks: what differs from the published run, and what is to be known, a sentence each.
    """

    protocol: str
    version: int
    digest: str
    tested: str
    pictures: int
    classes: int
    sentences: int
    space_key: str
    seeds: tuple[SeedFigures, ...]
    map: float
    interval: Interval
    published: float
    source: str
    remarks: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def check_needs(protocol: Protocol, data: Path) -> None:
    """Find out before any work whether all is there.

    Raises:
        UserError: names everything that is missing, where it comes from and where it belongs.
    """
    missing = [f"'{data / need.path}' from {need.origin}" for need in protocol.needs if not (data / need.path).exists()]
    for plan in [protocol.model, *([protocol.partial.model] if protocol.partial else [])]:
        model, tag = plan.name, plan.pretrained
        if cached_weights(model, tag) is not None:
            continue
        missing.append(
            f"the weights of {model} ({tag}), which `tai cache images` fetches with --model {model} --pretrained "
            f"{tag}, "
            "or a folder with open_clip_config.json and weights as --model local-dir:FOLDER"
        )
    if missing:
        raise UserError(f"To reproduce {protocol.name!r}, lay there what is missing: {'; '.join(missing)}.")


def reproduce(
    protocol: Protocol, data: Path, out: Path, *, device: str = "auto", progress: Progress | None = None
) -> Reproduction:
    """Do everything below ``out``; what an earlier run has done there is not done again.

    Memory: as caching, tuning and `evaluate_tags`; 4 bytes per picture and class and a copy for the draws.

    Args:
        protocol: what.
        data: the folder of data.
        out: made if it is not there.
        device: for the encoder.
        progress: called as it goes on.

    Raises:
        UserError: for what is missing (see `check_needs`), data that does not fit, or a folder of another protocol.
    """
    say = progress or (lambda *_: None)
    check_needs(protocol, data)
    _claim(protocol, data, out)
    pictures = pictures_of(protocol.pictures, data)
    write_tables(pictures, out / "pictures.jsonl", out / "truth.jsonl")
    encoder = load_model(protocol.model, device)
    remarks = [*protocol.notes, CHECKPOINT, *_about_list(protocol, pictures)]
    failed = _cache(protocol, data, out, pictures, encoder, say)
    if failed:
        remarks.append(f"{failed:,} pictures could not be read and were left out.")
    splits, more = _groups(protocol, data)
    remarks += more
    sentences = FeatureStore.open(out / "sentences.zarr")
    labelled = None
    if protocol.partial is not None:
        labelled = tag_by_labels(protocol, protocol.partial, data, out, device, say)
    seeds, interval, evaluated = [], None, 0
    for seed in protocol.seeds:
        figures, tags = _run_seed(protocol, out, seed, sentences, encoder, splits, labelled, say)
        seeds.append(figures)
        if interval is None:
            interval, evaluated = _interval(tags, out)
    assert interval is not None
    result = Reproduction(
        protocol=protocol.name,
        version=protocol.version,
        digest=protocol.digest,
        tested=pictures.list_name,
        pictures=evaluated,
        classes=len(pictures.class_names),
        sentences=len(sentences),
        space_key=encoder.space_key,
        seeds=tuple(seeds),
        map=float(np.mean([one.map for one in seeds])),
        interval=interval,
        published=protocol.published.map,
        source=protocol.published.source,
        remarks=tuple(remarks),
    )
    write_atomically(out / "result.json", json.dumps(result.as_dict(), indent=2) + "\n")
    return result


def _claim(protocol: Protocol, data: Path, out: Path) -> None:
    """Keep runs of two protocols, versions, models or folders of data apart."""
    mine = {
        "protocol": protocol.name,
        "digest": protocol.digest,
        **asdict(protocol.model),
        "data": str(data.absolute()),
    }
    path = out / "protocol.json"
    found = None
    with suppress(ItemError, ValueError):
        found = read_json(path, _MOST_CLAIM_BYTES)
    if path.exists() and found != mine:
        raise UserError(f"The folder '{out}' holds a run of another protocol, model or data: choose another --out.")
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(mine, indent=2) + "\n")


def _about_list(protocol: Protocol, pictures: LabelledPictures) -> list[str]:
    if len(pictures) == protocol.pictures.count:
        return []
    return [
        f"The published figure is of {protocol.pictures.count:,} pictures, this one of {len(pictures):,}: they cannot "
        "be compared."
    ]


def _cache(
    protocol: Protocol, data: Path, out: Path, pictures: LabelledPictures, encoder: Encoder, say: Progress
) -> int:
    """Features of pictures and sentences; gives how many pictures failed."""
    failed = cache_pictures(out / "pictures.jsonl", out / "pictures.zarr", encoder, say, "pictures")
    corpus = training_sentences(protocol, data, pictures)
    cache_sentences(
        ((one.id, one.text, one.class_indices) for one in corpus),
        encoder,
        out / "sentences.zarr",
        labels=label_spec(corpus),
        progress=shown(say, "sentences"),
    )
    return failed


def _groups(protocol: Protocol, data: Path) -> tuple[ClassSplits | None, list[str]]:
    """Groups of classes, counted from the training list where there is one, and whether they are the published ones."""
    name = protocol.pictures.splits
    if name is None:
        return None, []
    published = load_splits(name)
    if name not in TRAINING_LISTS:
        return published, []
    counted = ClassSplits(name, long_tail_groups(TRAINING_LISTS[name](data)))
    same = all(set(counted.groups[group]) == set(names) for group, names in published.groups.items())
    return counted, [] if same else [f"The groups counted from the training list of {name} are not the published ones."]


def _run_seed(
    protocol: Protocol,
    out: Path,
    seed: int,
    sentences: FeatureStore,
    encoder: Encoder,
    splits: ClassSplits | None,
    labelled: Path | None,
    say: Progress,
) -> tuple[SeedFigures, Path]:
    folder, recipe = out / f"seed-{seed}", replace(protocol.recipe, seed=seed)
    task = TuningTask.prepare(sentences, encoder, words_of(protocol.pictures), recipe)

    def step(at: StepProgress) -> None:
        say(f"seed {seed}, tuning", at.step, at.steps)

    tuned = tune(task, recipe, folder / "run", step)
    tuned.prompts.save(folder / "prompts.safetensors")
    tags = folder / "tags.parquet"
    tag_store(
        FeatureStore.open(out / "pictures.zarr"),
        tuned.prompts,
        tags,
        progress=lambda done, total: say(f"seed {seed}, tagging", done, total),
    )
    if protocol.partial is not None and labelled is not None:
        tags = with_labels(protocol.partial, tags, labelled)
    found = evaluate_tags(tags, out / "truth.jsonl", EvaluationRules(), splits=splits)
    held_out = None if tuned.held_out is None else float(tuned.held_out.merged.mean)
    return SeedFigures(seed, found.precisions.mean, found.groups, held_out), tags


def _interval(tags: Path, out: Path) -> tuple[Interval, int]:
    """Of the first run, and how many pictures it tagged."""
    scores = read_tag_file(tags).scores
    truth = load_truth(out / "truth.jsonl", scores.class_names)
    row_of = {name: row for row, name in enumerate(truth.ids)}
    labels = truth.labels[[row_of[name] for name in scores.ids]]
    return bootstrap_map(scores.scores.numpy(), labels, draws=INTERVAL_DRAWS), len(scores.ids)
