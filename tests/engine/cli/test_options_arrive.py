"""Every option of every command reaches the config or the call that it is for, and changes nothing else.

A command is run twice up to where its work begins, as it is and with one option changed; what the work was handed is
compared. A new option without a case here fails.
"""

import contextlib
import dataclasses
import functools
import importlib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import typer

from tai_engine.cli.main import app
from tai_engine.features import FeatureBatch
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.store import FeatureStore
from tai_engine.vocabulary import Vocabulary


class BegunError(Exception):
    """The work begins here."""


def flat(value: Any, name: str) -> dict[str, Any]:
    """What a value holds, by dotted names; objects that are no configuration stand for themselves by their type."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type | Vocabulary | PromptSet):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, functools.partial):
        value = dict(value.keywords)
    if isinstance(value, Mapping) and value:
        return {k: v for key, part in value.items() for k, v in flat(part, f"{name}.{key}").items()}
    if isinstance(value, Vocabulary | PromptSet):
        return {f"{name}.names": value.names if isinstance(value, Vocabulary) else value.class_names}
    if isinstance(value, FeatureStore):
        return {f"{name}.path": str(value.path)}
    if isinstance(value, Mapping):
        return {name: {}}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return {name: tuple(str(part) if isinstance(part, Path) else part for part in value)}
    if isinstance(value, Path):
        return {name: str(value)}
    return {name: value if isinstance(value, int | float | str | None) else type(value).__name__}


class Recorder:
    """Stands in the place of functions and notes by name what they are handed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.seen: dict[str, Any] = {}

    def quietly(self, target: str, result: Any) -> None:
        """Stands in its place and notes nothing."""
        self._monkeypatch.setattr(target, lambda *_arguments, **_options: result)

    def replace(self, target: str, result: Any = None, called: str | None = None) -> None:
        """``result`` is given back, or raised if it is an exception."""
        name = called or target.rsplit(".", 1)[-1]
        module, _, attribute = target.rpartition(".")
        signature = inspect.signature(_resolve(module, attribute))

        def stand_in(*arguments: Any, **options: Any) -> Any:
            bound = signature.bind(*arguments, **options)
            for parameter, value in bound.arguments.items():
                self.seen |= flat(value, f"{name}.{parameter}")
            if isinstance(result, type) and issubclass(result, Exception):
                raise result
            return result(*arguments) if inspect.isfunction(result) else result

        self._monkeypatch.setattr(target, stand_in)


def _resolve(module: str, attribute: str) -> Any:
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError:  # a class in a module
        return getattr(_resolve(*module.rsplit(".", 1)), attribute)


class Case(NamedTuple):
    """An option as it is given, and what is different then.

    Attributes:
        given: after the rest of the command.
        changes: what the work is handed in the end, by name; ``...`` after a name allows all that begins with it.
        beside: other options that it needs, which the command to compare with has too.
        argument: which argument is another one, in place of an option.
        without: what of the command does not go with it.
    """

    given: tuple[str, ...]
    changes: dict[str, Any]
    beside: tuple[str, ...]
    argument: int | None
    without: tuple[str, ...]


def one(
    given: str,
    changes: dict[str, Any],
    beside: str = "",
    argument: int | None = None,
    last: str = "",
    without: str = "",
) -> Case:
    """A case from command lines."""
    words = (*given.split(), *([last] if last else []))
    return Case(words, changes, tuple(beside.split()), argument, tuple(without.split()))


ENCODER = SimpleNamespace(
    space_key="space", logit_scale=100.0, encode_class_texts=None, unread_words=lambda _names: (), recipe={}
)
PROMPTS = PromptSet(("dog",), torch.eye(2)[:1], torch.eye(2)[:1], "space", 100.0)
BATCH = FeatureBatch(("0.png",), torch.eye(2)[:1], torch.eye(2)[:0], torch.tensor([0, 0]), "space")


def tune_stops(recorder: Recorder) -> None:
    brought = {"tuning": {"noise": 0.75}, "initial_words": "brought"}
    best = SimpleNamespace(trials=(), describe=str, apply=lambda config: config)
    recorder.replace("tai_engine.cli.options.VocabularyChoice.load", Vocabulary.from_names(["dog"]))
    recorder.replace("tai_engine.cli.options.EncoderChoice.open", ENCODER)
    recorder.quietly("tai_engine.cli.options.EncoderChoice.open_or", ENCODER)
    own = SimpleNamespace(spec=SimpleNamespace(provenance={}))
    recorder.replace("tai_engine.cli.sentences_option.cache_sentences_of", own)
    recorder.quietly("tai_engine.tuning.check_store", None)
    recorder.replace("tai_engine.evaluation.truth.load_truth")
    recorder.quietly("tai_engine.tuning.TrainingPictures", "pictures")
    recorder.replace("tai_engine.encoders.embedded.constants_of", SimpleNamespace(**brought))
    recorder.replace("tai_engine.tuning.TuningTask.prepare")
    recorder.replace("tai_engine.tuning.find_constants", best)
    recorder.replace("tai_engine.tuning.tune", SimpleNamespace(prompts=PROMPTS, remarks=()))
    recorder.replace("tai_engine.prompts.prompt_set.PromptSet.save")
    recorder.replace("tai_engine.cli.tune.print_json")
    recorder.quietly("tai_engine.cli.tune.print_trials", None)
    recorder.quietly("tai_engine.cli.tune.summary", {"classes": 1})
    recorder.quietly("tai_engine.cli.tune.describe", None)


def cache_images_stops(recorder: Recorder) -> None:
    recorder.replace("tai_engine.sources.open_source")
    recorder.quietly("tai_engine.decoding.process.spare.start", None)
    recorder.replace("tai_engine.cli.cache.open_encoder", ENCODER)
    recorder.replace("tai_engine.distributed.ray_cluster.require_ray")
    recorder.replace("tai_engine.caching.images.cache_images", BegunError)
    recorder.replace("tai_engine.cli.cache.cache_elsewhere", BegunError)


def annotate_stops(recorder: Recorder) -> None:
    report = SimpleNamespace(
        caching=SimpleNamespace(remarks=(), missing=0, deleted=0, kept_because="", failed=0), tagging=None
    )
    recorder.replace("tai_engine.sources.open_source")
    recorder.quietly("tai_engine.decoding.process.spare.start", None)
    recorder.replace("tai_engine.cli.annotate.open_encoder", ENCODER)
    recorder.replace("tai_engine.cli.options.VocabularyChoice.load", Vocabulary.from_names(["dog"]))
    recorder.replace("tai_engine.prompts.prompt_set.zero_shot_prompts", PROMPTS)
    recorder.replace("tai_engine.calibration.calibration.Calibration.load", "calibration", "load_calibration")
    recorder.replace("tai_engine.annotating.annotate.annotate", report)
    recorder.quietly("tai_engine.cli.annotate._described", [])
    recorder.replace("tai_engine.cli.annotate._summary", {})


def cache_texts_stops(recorder: Recorder) -> None:
    recorder.replace("tai_engine.cli.corpus_options.open_corpus")
    recorder.replace("tai_engine.cli.corpus_options.check_files")
    recorder.replace("tai_engine.cli.cache.open_encoder", ENCODER)
    recorder.replace("tai_engine.caching.texts.cache_sentences", BegunError)


def tag_stops(recorder: Recorder) -> None:
    recorder.replace("tai_engine.cli.options.VocabularyChoice.load", Vocabulary.from_names(["dog"]))
    recorder.replace("tai_engine.cli.options.EncoderChoice.open", ENCODER)
    recorder.replace("tai_engine.distributed.ray_cluster.require_ray")
    recorder.replace("tai_engine.prompts.prompt_set.zero_shot_prompts", PROMPTS)
    recorder.replace("tai_engine.label_free.compound.with_compound_prompts", PROMPTS)
    recorder.replace("tai_engine.label_free.sentence_means.with_sentence_means", PROMPTS)
    recorder.replace("tai_engine.label_free.linear_head.with_linear_head", PROMPTS)
    recorder.replace("tai_engine.label_free.patch_gaussians.with_patch_gaussians", PROMPTS)
    recorder.replace("tai_engine.prompts.prompt_set.PromptSet.load", PROMPTS, "read")
    recorder.replace("tai_engine.calibration.calibration.Calibration.load", "calibration", "load_calibration")
    recorder.replace("tai_engine.tables.text_files.read_words", ("cat",))
    recorder.replace("tai_engine.tagging.batch_loop.tag_store", BegunError)
    recorder.replace("tai_engine.cli.tag.tag_elsewhere", BegunError)


def ensemble_stops(recorder: Recorder) -> None:
    recorder.replace("tai_engine.tagging.ensemble.ensemble", BegunError)


def calibrate_stops(recorder: Recorder) -> None:
    truth = SimpleNamespace(ids=("0.png",), labels=np.zeros((1, 1), dtype=np.int8))
    calibration = SimpleNamespace(save=None, made_from="labels", examples=1, promises=())
    result = SimpleNamespace(calibration=calibration, missing=0, fitted=None, held_out=None)
    recorder.replace("tai_engine.cli.options.VocabularyChoice.load", Vocabulary.from_names(["dog"]))
    recorder.replace("tai_engine.cli.options.EncoderChoice.open", ENCODER)
    recorder.replace("tai_engine.prompts.prompt_set.zero_shot_prompts", PROMPTS)
    recorder.replace("tai_engine.prompts.prompt_set.PromptSet.load", PROMPTS, "read")
    recorder.replace("tai_engine.evaluation.truth.load_truth", truth)
    recorder.replace("tai_engine.review.journal.read_decisions", {})
    recorder.replace("tai_engine.annotating.calibration_files.read_rates", {})
    for name in ("labels", "rates", "sentences"):
        recorder.replace(f"tai_engine.annotating.calibrate_store.calibrate_by_{name}", result)
    recorder.replace("tai_engine.annotating.calibration_files.write_report")
    recorder.replace("tai_engine.cli.calibrate.save")
    recorder.replace("tai_engine.cli.calibrate.print_json")
    recorder.quietly("tai_engine.cli.calibrate.print_found", None)


def export_stops(recorder: Recorder) -> None:
    recorder.replace("tai_engine.review.decided_tags.decided_rows", ((), {"class_names": "[]"}, None))
    recorder.quietly("tai_engine.review.decided_tags.untagged_items", ())
    recorder.replace("tai_engine.tagging.exporters.Exporter.export", 0)
    recorder.replace("tai_engine.cli.export.print_json")
    recorder.replace("tai_engine.cli.export.print_table")


def search_stops(recorder: Recorder) -> None:
    recorder.replace("tai_engine.cli.options.EncoderChoice.open", ENCODER)
    recorder.replace("tai_engine.prompts.prompt_set.zero_shot_prompts", PROMPTS)
    recorder.replace("tai_engine.searching.search.search_words", [[]])
    recorder.replace("tai_engine.searching.search.search_like", [[]])
    recorder.replace("tai_engine.searching.likeness.vectors_like", torch.eye(2))
    recorder.replace("tai_engine.searching.search_sheet.draw_found", 0)
    recorder.replace("tai_engine.cli.search.print_json")


def explain_stops(recorder: Recorder) -> None:
    encoder = SimpleNamespace(**vars(ENCODER), encode_images=lambda _shown, _names: BATCH)
    recorder.replace("tai_engine.cli.options.VocabularyChoice.load", Vocabulary.from_names(["dog"]))
    recorder.replace("tai_engine.cli.options.EncoderChoice.open", encoder)
    recorder.replace("tai_engine.cli.explain.open_encoder", encoder)
    recorder.replace("tai_engine.prompts.prompt_set.zero_shot_prompts", PROMPTS)
    recorder.replace("tai_engine.prompts.prompt_set.PromptSet.load", PROMPTS, "read")
    recorder.replace("tai_engine.searching.likeness.open_picture")
    recorder.replace("tai_engine.explain.explained.explain", [])
    recorder.replace("tai_engine.explain.explained.draw_explained")
    recorder.replace("tai_engine.cli.explain.print_json")


class Pictures(SimpleNamespace):
    """Stands for a collection."""

    def __len__(self) -> int:
        return 1


def review_stops(recorder: Recorder) -> None:
    recorder.quietly("tai_engine.cli.review._require_extra", None)
    recorder.replace("tai_engine.cli.review._open", Pictures(suggestions=SimpleNamespace(sha256="")))
    recorder.replace("tai_engine.cli.review._heatmaps")
    listener = SimpleNamespace(getsockname=lambda: ("", 8770))
    recorder.replace("tai_engine.review.serving.listen", contextlib.nullcontext(listener))
    entries = SimpleNamespace(cut_bytes=0, close=lambda: None)
    recorder.replace("tai_engine.review.journal.Journal", entries, "journal")
    recorder.replace("tai_engine.disk_cache.DiskCache", called="cache")
    thumbnails = SimpleNamespace(make_first=lambda *_arguments: None, close=lambda: None)
    recorder.replace("tai_engine.review.thumbnails.Thumbnails", thumbnails, "thumbnails")
    recorder.replace("tai_engine.review.session.ReviewSession", called="session")
    recorder.quietly("tai_engine.review.server.review_app", None)
    recorder.replace("tai_engine.review.serving.serve", lambda _app, _listener, say: say())
    recorder.replace("tai_engine.cli.review.print_json")


def report_stops(recorder: Recorder) -> None:
    recorder.replace("tai_engine.cli.review._open", Pictures())
    recorder.replace("tai_engine.review.journal.read_decisions")
    recorder.replace("tai_engine.review.report_folder.estimate_report", SimpleNamespace(pictures=1, bytes=1))
    recorder.replace("tai_engine.review.report_folder.write_report", Written())
    recorder.replace("tai_engine.cli.review.print_json")


@dataclasses.dataclass
class Written:
    """Stands for what came of a report."""

    pictures: int = 1
    bytes: int = 1
    page: str = ""
    failed: tuple[Any, ...] = ()
    failed_count: int = 0


def evaluate_stops(recorder: Recorder) -> None:
    recorder.replace("tai_engine.evaluation.class_splits.load_splits")
    recorder.replace("tai_engine.evaluation.tag_evaluation.evaluate_tags", SimpleNamespace(remarks=[]))
    recorder.quietly("tai_engine.cli.evaluate.describe", None)
    recorder.quietly("tai_engine.cli.evaluate.summary", {"map": 0.5})
    recorder.replace("tai_engine.cli.evaluate.print_json")


def compare_stops(recorder: Recorder) -> None:
    recorder.replace("tai_engine.evaluation.tag_comparison.compare_tags", SimpleNamespace(remarks=[]))
    recorder.quietly("tai_engine.cli.compare._describe", None)
    recorder.quietly("tai_engine.cli.compare._summary", {"items": 3})
    recorder.replace("tai_engine.cli.compare.print_json")


def reproduce_stops(recorder: Recorder) -> None:
    recorder.quietly("tai_engine.reproducing.miniatures.write_miniature", None)
    recorder.replace("tai_engine.reproducing.reproduction.reproduce", SimpleNamespace(remarks=[], as_dict=dict))
    recorder.replace("tai_engine.cli.reproduce._describe")
    recorder.replace("tai_engine.cli.reproduce.print_json")
    recorder.replace("tai_engine.cli.reproduce._list")


def info_stops(recorder: Recorder) -> None:
    recorder.replace("tai_engine.store.FeatureStore.ledger", [])
    recorder.replace("tai_engine.cli.info.print_json")


def store_stops(recorder: Recorder) -> None:
    report = SimpleNamespace(
        problems=[], leftovers=[], is_sound=True, groups_before=1, groups_after=1, dropped=0, items=1, as_dict=dict
    )
    for name in ("verify.verify_store", "repair.repair_store", "compact.compact_store"):
        recorder.replace(f"tai_engine.store.upkeep.{name}", report)
    recorder.quietly("tai_engine.cli.store._verdict", "")
    recorder.replace("tai_engine.cli.store.print_json")


def doctor_stops(recorder: Recorder) -> None:
    recorder.replace("tai_engine.doctor.examine", [])
    recorder.replace("tai_engine.cli.doctor.print_json")


def demo_stops(recorder: Recorder) -> None:
    recorder.replace("tai_engine.demo.walkthrough.run_demo")
    recorder.replace("tai_engine.cli.demo._summary", {})
    recorder.replace("tai_engine.cli.demo._describe")
    recorder.replace("tai_engine.cli.demo.print_json")


def bench_stops(recorder: Recorder) -> None:
    for name in ("score", "tune", "encode", "cache", "corpus", "scaling", "shell"):
        recorder.replace(f"tai_benchmarks.bench_{name}.run", [])
    recorder.replace("tai_engine.cli.bench._report", BegunError)
    recorder.quietly("tai_benchmarks.protocol.checkout_results", Path("checkout"))
    recorder.replace("tai_engine.cli.bench._set_threads")


def book_stops(recorder: Recorder) -> None:
    recorder.replace("tai_benchmarks.book.run_all", [])
    recorder.replace("tai_benchmarks.book.write_book", Path("page"))
    recorder.quietly("tai_benchmarks.protocol.checkout_results", Path("checkout/results"))


def vocabulary_cases(place: str, beside: str = "") -> dict[str, Case]:
    return {
        "vocabulary": one("--vocabulary nuswide81", {f"{place}.spec": "nuswide81"}, beside),
        "vocabulary_column": one("--vocabulary-column name", {f"{place}.column": "name"}, beside),
        "merge_duplicates": one("--merge-duplicates", {f"{place}.merge_duplicates": True}, beside),
    }


def table_cases(*places: str) -> dict[str, Case]:
    """Of the commands that read a table; ``places`` are all that are handed what the user says of it."""

    def each(field: str, value: Any) -> dict[str, Any]:
        return {f"{place}.{field}": value for place in places}

    return {
        "format_": one("--format csv", each("format", "csv")),
        "separator": one("--separator ;", each("separator", ";")),
        "header": one("--no-header", each("header", False)),
        "encoding": one("--encoding latin-1", each("encoding", "latin-1")),
    }


def recipe(**settings: Any) -> dict[str, Any]:
    """Settings that both the task and its run are handed."""
    return {f"{place}.config.{name}": value for place in ("prepare", "tune") for name, value in settings.items()}


TUNE = {
    "store": one("", {"prepare.store.path": "STORE2", "open.store.path": "STORE2"}, argument=1),
    "sentences": one(
        "--sentences S",
        {"cache_sentences_of.sentences": "S", "prepare.store": ..., "constants_of.model": ...},
        without="STORE",
    ),
    "out": one("--out PLACE/q", {"save.path": "PLACE/q", "tune.run": "PLACE/q.run"}),
    "run": one("--run PLACE/r", {"tune.run": "PLACE/r"}),
    "recipe": one("--recipe published", {"prepare.init": None, **recipe(noise=0.0)}),
    "labels": one("--labels PLACE/l", {"load_truth.path": "PLACE/l", "prepare.store": "pictures"}),
    "unknown_labels": one(
        "--unknown-labels ignore", {"load_truth.options.unknown_labels": "ignore"}, beside="--labels PLACE/l"
    ),
    "system": one("--system coop", {"prepare.config.": ..., "tune.config.": ..., "prepare.init": None}),
    "known": one("--known 0.5", recipe(known=0.5), beside="--loss asl_partial"),
    "shots": one("--shots 4", recipe(shots=4)),
    "epochs": one("--epochs 7", recipe(epochs=7)),
    "learning_rate": one("--lr 0.5", recipe(learning_rate=0.5)),
    "batch_size": one("--batch-size 9", recipe(batch_size=9)),
    "seed": one("--seed 5", recipe(**{"seed": 5, "negatives.seed": 5})),
    "loss": one("--loss asl", recipe(loss="asl")),
    "temperature": one("--temperature 12", recipe(text_temperature=12.0)),
    "image_temperature": one("--image-temperature 9", recipe(image_temperature=9.0)),
    "find_constants": one("--find-constants", {"find_constants.folder": "PLACE/p.run"}),
    "negatives": one("--negatives hard", recipe(**{"negatives.strategy": "hard"})),
    "negative_share": one("--negative-share 0.5", recipe(**{"negatives.share": 0.5}), beside="--negatives hard"),
    "refresh": one("--refresh 3", recipe(**{"negatives.refresh": 3}), beside="--negatives hard"),
    "contexts": one("--contexts 4", recipe(n_contexts=4)),
    "class_specific": one("--class-specific", recipe(class_specific=True)),
    "position": one("--position front", recipe(position="front")),
    "init": one("--init word", {"prepare.init": "word"}),
    "held_out": one("--held-out 0.2", recipe(held_out=0.2)),
    "keep": one("--keep best", recipe(keep="best")),
    "noise": one("--noise 1.5", recipe(noise=1.5)),
    "start_share": one("--start-share 0.3", recipe(start_share=0.3)),
    "normalise": one("--normalise centre", recipe(normalise="centre")),
    "patience": one("--patience 2", recipe(patience=2)),
    "model": one("--model RN50", {"open.self.model": "RN50", "constants_of.model": "RN50"}),
    "pretrained": one("--pretrained openai", {"open.self.pretrained": "openai"}),
    "device": one("--device cpu", {"open.self.device": "cpu"}),
    "precision": one("--precision bf16", {"open.self.precision": "bf16"}),
    "cuda_graphs": one("--cuda-graphs", {"prepare.cuda_graphs": True}),
    "as_json": one("--json", {"print_json.value.classes": 1}),
    **vocabulary_cases("load.self"),
}

ENCODING = "open_encoder.options"
OPTIONS = "cache_images.options"
PLACES = "cache_elsewhere.places"
CACHE_IMAGES = {
    "exclude": one("--exclude *.gif", {"open_source.options.exclude": ("*.gif",)}),
    "column": one("--column path", {"open_source.options.column": "path"}),
    "allow": one("--allow s3://other", {"open_source.options.allow": ("s3://other",)}),
    **table_cases("open_source.options.table"),
    "source": one("", {"open_source.spec": "other", f"{OPTIONS}.origin": ...}, argument=2),
    "store": one("", {"cache_images.path": "other"}, argument=3),
    "model": one("--model RN101", {"open_encoder.model": "RN101"}),
    "pretrained": one("--pretrained yfcc15m", {"open_encoder.pretrained": "yfcc15m"}),
    "image_size": one("--image-size 448", {f"{ENCODING}.image_size": 448}),
    "dense": one("--dense value", {f"{ENCODING}.dense": "value"}),
    "coarse_only": one("--coarse-only", {f"{ENCODING}.dense": "none"}),
    "rows": one("--rows int8", {f"{OPTIONS}.row_dtype": "int8"}),
    "max_megapixels": one("--max-megapixels 9", {"cache_images.decoding.max_megapixels": 9.0}),
    "draft": one("--draft", {"cache_images.decoding.draft": 1.5, f"{ENCODING}.decoding.draft": 1.5}),
    "check": one("--check content", {f"{OPTIONS}.check": "content"}),
    "retry_failed": one("--retry-failed", {f"{OPTIONS}.retry_failed": True}),
    "delete_missing": one("--delete-missing", {f"{OPTIONS}.delete_missing": True}),
    "delete_many": one("--delete-many", {f"{OPTIONS}.delete_many": True, f"{OPTIONS}.delete_missing": True}),
    "id_prefix": one("--id-prefix cam2/", {f"{OPTIONS}.id_prefix": "cam2/", "cache_images.source": ...}),
    "moved": one("--moved", {f"{OPTIONS}.has_moved": True}),
    "device": one("--device cpu", {f"{ENCODING}.device": "cpu"}),
    "devices": one("--devices cpu,cpu,cpu", {f"{PLACES}.devices": ("cpu", "cpu", "cpu")}, beside="--processes 2"),
    "processes": one("--processes 3", {f"{PLACES}.devices": ("cpu",) * 3}, beside="--devices cpu,cpu"),
    "runner": one("--runner ray", {f"{PLACES}.runner": "ray", f"{PLACES}.": ...}, beside="--processes 2"),
    "ray_address": one("--ray-address x:1", {f"{PLACES}.ray_address": "x:1"}, beside="--runner ray"),
    "precision": one("--precision bf16", {f"{ENCODING}.precision": "bf16"}),
    "fast": one("--exact", {f"{ENCODING}.fast": False}),
    "batch_size": one("--batch-size 7", {f"{ENCODING}.batch_size": 7}),
    "workers": one("--workers 3", {f"{OPTIONS}.workers": 3}),
    "timeout": one("--timeout 5", {f"{OPTIONS}.timeout_seconds": 5.0}),
}

ANNOTATING = "annotate.options"
ANNOTATE = {
    "source": one(
        "", {"open_source.spec": ..., f"{ANNOTATING}.cache.origin": ..., "annotate.results.": ...}, argument=1
    ),
    "out": one("--out PLACE/q", {"annotate.results.path": "PLACE/q"}),
    "calibration": one("--calibration PLACE/c", {"load_calibration.path": "PLACE/c", f"{ANNOTATING}.calibration": ...}),
    "min_precision": one("--min-precision 0.5", {f"{ANNOTATING}.selection.min_precision": 0.5}),
    "threshold": one("--threshold 3", {f"{ANNOTATING}.selection.threshold": 3.0}),
    "top_k": one("--top-k 2", {f"{ANNOTATING}.selection.top_k": 2}),
    "page": one("--no-report", {f"{ANNOTATING}.has_report": False}),
    "moved": one("--moved", {f"{ANNOTATING}.cache.has_moved": True}),
    "delete_missing": one("--delete-missing", {f"{ANNOTATING}.cache.delete_missing": True}),
    "delete_many": one(
        "--delete-many", {f"{ANNOTATING}.cache.delete_many": True, f"{ANNOTATING}.cache.delete_missing": True}
    ),
    "retry_failed": one("--retry-failed", {f"{ANNOTATING}.cache.retry_failed": True}),
    "model": one("--model RN101", {"open_encoder.model": "RN101", "annotate.results.about.model": "RN101"}),
    "pretrained": one(
        "--pretrained yfcc15m", {"open_encoder.pretrained": "yfcc15m", "annotate.results.about.pretrained": "yfcc15m"}
    ),
    "device": one("--device cpu", {f"{ENCODING}.device": "cpu", f"{ANNOTATING}.device": "cpu"}),
    "precision": one("--precision bf16", {f"{ENCODING}.precision": "bf16"}),
    "fast": one("--exact", {f"{ENCODING}.fast": False}),
    "batch_size": one("--batch-size 7", {f"{ENCODING}.batch_size": 7}),
    "workers": one("--workers 3", {f"{ANNOTATING}.cache.workers": 3}),
    "as_json": one("--json", {"_summary.": ...}),
    **vocabulary_cases("load.self"),
}

CORPUS = "open_corpus"


def read(**changes: Any) -> dict[str, Any]:
    """Of how sentences are read, by those who look at the files and by those who read them."""
    places = ("open_corpus.reading", "check_files.options")
    return {f"{place}.{name}": value for name, value in changes.items() for place in places}


CACHE_TEXTS = {
    "files": one("", {f"{CORPUS}.files": ("other",), "check_files.files": ("other",)}, argument=2),
    "store": one("", {"cache_sentences.path": "other"}, argument=3),
    "language": one("--language de", {f"{CORPUS}.language": "de"}),
    "templates": one("--no-templates", {f"{CORPUS}.templates": False}),
    "limit_per_rarest_class": one("--limit-per-rarest-class 4", {f"{CORPUS}.limit_per_rarest_class": 4}),
    "exclude_images": one("--exclude-images PLACE/ids", {f"{CORPUS}.exclude_images": "PLACE/ids"}),
    "sentences_per_image": one("--sentences-per-image 2", {f"{CORPUS}.sentences_per_image": 2}),
    "model": one("--model RN101", {"open_encoder.model": "RN101"}),
    "pretrained": one("--pretrained yfcc15m", {"open_encoder.pretrained": "yfcc15m"}),
    "column": one("--column text", read(text_column="text")),
    "image_column": one("--image-column id", read(image_column="id")),
    "rows": one("--rows fp32", {"cache_sentences.options.row_dtype": "float32"}),
    "device": one("--device cpu", {f"{ENCODING}.device": "cpu"}),
    "precision": one("--precision bf16", {f"{ENCODING}.precision": "bf16"}),
    "batch_size": one("--batch-size 7", {f"{ENCODING}.batch_size": 7}),
    **table_cases("open_corpus.reading.table", "check_files.options.table"),
    **vocabulary_cases(f"{CORPUS}.vocabulary", beside="--vocabulary voc20"),
}

TAGGING, TAG_PLACES = "tag_store", "tag_elsewhere.places"
FOLDER = "--out PLACE/tags --format parquet"
TAG = {
    "store": one("", {f"{TAGGING}.store.path": "STORE2", "open.store.path": "STORE2"}, argument=1),
    "out": one("--out PLACE/other.parquet", {f"{TAGGING}.out": "PLACE/other.parquet"}),
    "prompts": one("--prompts PLACE/p", {"read.path": "PLACE/p"}, without="--vocabulary voc20"),
    "templates": one("--template", {"zero_shot_prompts.templates": ("my {}",)}, last="my {}"),
    "compound": one("--compound", {"with_compound_prompts.": ...}),
    "sentences": one("--sentences STORE2", {"with_sentence_means.": ...}),
    "linear_head": one("--sentences STORE2 --linear-head", {"with_linear_head.": ...}),
    "patches": one("--patches", {"with_patch_gaussians.": ...}),
    "top_k": one("--top-k 2", {f"{TAGGING}.selection.top_k": 2}),
    "threshold": one("--threshold 3", {f"{TAGGING}.selection.threshold": 3.0}),
    "calibration": one("--calibration PLACE/c", {"load_calibration.path": "PLACE/c", f"{TAGGING}.calibration": ...}),
    "min_precision": one("--min-precision 0.5", {f"{TAGGING}.selection.min_precision": 0.5}),
    "min_probability": one("--min-probability 0.5", {f"{TAGGING}.selection.min_probability": 0.5}),
    "always_top": one("--always-top 2", {f"{TAGGING}.selection.always_top": 2}),
    "never": one("--never PLACE/n", {"read_words.path": "PLACE/n", f"{TAGGING}.selection.never": ("cat",)}),
    "which": one("--score fine", {f"{TAGGING}.scoring.which": "fine"}),
    "pooling": one("--pooling max", {f"{TAGGING}.scoring.pooling": "max"}),
    "temperature": one("--temperature 9", {f"{TAGGING}.scoring.temperature": 9.0}),
    "mix": one("--mix 0.25", {f"{TAGGING}.scoring.mix": 0.25}),
    "normalise": one("--normalise softmax", {f"{TAGGING}.scoring.normalise": "softmax"}),
    "format_": one("--format jsonl", {f"{TAGGING}.format": "jsonl"}),
    "model": one("--model RN101", {"open.self.model": "RN101"}),
    "pretrained": one("--pretrained yfcc15m", {"open.self.pretrained": "yfcc15m"}),
    "device": one("--device cpu", {"open.self.device": "cpu", f"{TAGGING}.device": "cpu"}),
    "devices": one("--devices cpu,cpu,cpu", {f"{TAG_PLACES}.devices": ("cpu",) * 3}, beside="--processes 2"),
    "processes": one("--processes 3", {f"{TAG_PLACES}.devices": ("cpu",) * 3}, beside="--devices cpu,cpu"),
    "runner": one("--runner ray", {f"{TAG_PLACES}.runner": "ray", f"{TAG_PLACES}.": ...}, FOLDER + " --processes 2"),
    "ray_address": one("--ray-address x:1", {f"{TAG_PLACES}.ray_address": "x:1"}, FOLDER + " --runner ray"),
    "precision": one("--precision bf16", {"open.self.precision": "bf16"}),
    **vocabulary_cases("load.self"),
}

ENSEMBLE = {
    "first": one("", {"ensemble.first": "other"}, argument=1),
    "second": one("", {"ensemble.second": "other"}, argument=2),
    "out": one("--out PLACE/other.parquet", {"ensemble.out": "PLACE/other.parquet"}),
    "ratio": one("--ratio 0.9", {"ensemble.ratio": 0.9}),
}

CALIBRATE = {
    "unknown_labels": one("--unknown-labels ignore", {"load_truth.options.unknown_labels": "ignore"}),
    "store": one("", {"calibrate_by_labels.store.path": "STORE2", "open.store.path": "STORE2"}, argument=1),
    "out": one("--out PLACE/q", {"save.out": "PLACE/q"}),
    "truth": one("--truth PLACE/u", {"load_truth.path": "PLACE/u"}),
    "decisions": one(
        "--decisions PLACE/j",
        {"read_decisions.path": "PLACE/j", "calibrate_by_labels.": ..., "load_truth.": ...},
        without="--truth PLACE/t",
    ),
    "sentences": one(
        "--sentences STORE2", {"calibrate_by_": ..., "load_truth.": ..., "read": ...}, without="--truth PLACE/t"
    ),
    "rates": one(
        "--rates PLACE/r",
        {"read_rates.path": "PLACE/r", "calibrate_by_": ..., "load_truth.": ...},
        without="--truth PLACE/t",
    ),
    "prompts": one(
        "--prompts PLACE/p",
        {"read.path": "PLACE/p", "open.": ..., "zero_shot_prompts.": ..., "load.": ...},
        without="--vocabulary voc20",
    ),
    "templates": one("--template", {"zero_shot_prompts.templates": ("my {}",)}, last="my {}"),
    "promises": one("--promise recall=0.5", {"calibrate_by_labels.targets": ...}),
    "confidence": one("--confidence 0.8", {"calibrate_by_labels.targets": ...}),
    "together": one("--together", {"calibrate_by_labels.targets": ...}),
    "which": one("--score fine", {"calibrate_by_labels.scoring.which": "fine"}),
    "pooling": one("--pooling max", {"calibrate_by_labels.scoring.pooling": "max"}),
    "temperature": one("--temperature 9", {"calibrate_by_labels.scoring.temperature": 9.0}),
    "mix": one("--mix 0.25", {"calibrate_by_labels.scoring.mix": 0.25}),
    "normalise": one("--normalise softmax", {"calibrate_by_labels.scoring.normalise": "softmax"}),
    "report": one("--report PLACE/r", {"write_report.folder": "PLACE/r", "write_report.": ...}),
    "device": one("--device cpu", {"open.self.device": "cpu"}),
    "precision": one("--precision bf16", {"open.self.precision": "bf16"}),
    "as_json": one("--json", {"print_json.": ...}),
    **vocabulary_cases("load.self"),
}
EXPORT = {
    "tags": one("", {"decided_rows.tags": "other"}, argument=1),
    "to": one("--to csv", {"export.self.": ...}),
    "out": one("--out PLACE/q", {"export.path": "PLACE/q"}),
    "images": one("--images PLACE/i", {"export.options.images": "PLACE/i"}),
    "decisions": one("--decisions PLACE/j", {"decided_rows.decisions": "PLACE/j"}),
    "image_prefix": one("--image-prefix x", {"export.options.image_prefix": "x"}),
    "xmp_name": one("--xmp-name photo.xmp", {"export.options.xmp_name": "photo.xmp"}),
    "file_items": one("--file-items 7", {"export.options.file_items": 7}),
    "formats": one("--formats", {"print_table.": ..., "export.": ..., "decided_rows.": ...}),
    "as_json": one("--json", {"print_json.": ...}),
}
SEARCH = {
    "store": one("", {"search_words.store.path": "STORE2", "open.store.path": "STORE2"}, argument=1),
    "words": one("", {"zero_shot_prompts.vocabulary.names": ("other",)}, "--background none", argument=2),
    "like": one("--like 0.png", {"vectors_like.names": ("0.png",)}),
    "top": one("--top 3", {"search_words.top": 3}),
    "which": one("--score fine", {"search_words.which": "fine"}),
    "background": one("--background none", {"search_words.background": None, "zero_shot_prompts.": ...}),
    "images": one("--images PLACE/i", {"draw_found.images": "PLACE/i"}, beside="--sheet PLACE/s --images PLACE"),
    "sheet": one("--sheet PLACE/t", {"draw_found.path": "PLACE/t"}, beside="--sheet PLACE/s --images PLACE"),
    "as_json": one("--json", {"print_json.value": ()}),
    "device": one("--device cpu", {"open.self.device": "cpu"}),
    "precision": one("--precision bf16", {"open.self.precision": "bf16"}),
}
EXPLAIN = {
    "picture": one("", {"draw_explained.title": "other", "open_picture.path": "other"}, argument=1),
    "out": one("--out PLACE/q", {"draw_explained.path": "PLACE/q"}),
    "tags": one("--tag dog", {"explain.tags": ("dog",)}),
    "store": one("--store STORE", {"open.store.path": "STORE", "explain.item.": ..., "draw_explained.": ...}),
    "images": one("--images PLACE/i", {"open_picture.path": "PLACE/i/0.png"}, beside="--store STORE --images PLACE"),
    "prompts": one("--prompts PLACE/p", {"read.path": "PLACE/p"}),
    "model": one("--model RN101", {"open_encoder.model": "RN101"}),
    "pretrained": one("--pretrained yfcc15m", {"open_encoder.pretrained": "yfcc15m"}),
    "device": one("--device cpu", {f"{ENCODING}.device": "cpu"}),
    "precision": one("--precision bf16", {f"{ENCODING}.precision": "bf16"}),
    "as_json": one("--json", {"print_json.value": ()}),
    **vocabulary_cases("load.self"),
}

EVALUATE = {
    "tags": one("", {"evaluate_tags.tags": "other"}, argument=1),
    "truth": one("--truth PLACE/t", {"evaluate_tags.truth": "PLACE/t"}),
    "difficult": one("--difficult ignore", {"evaluate_tags.rules.difficult": "ignore"}),
    "average_precision": one("--average-precision 11-point", {"evaluate_tags.rules.interpolation": "11-point"}),
    "top_k": one("--top-k 4", {"evaluate_tags.rules.top_k": 4}),
    "threshold": one("--threshold 0.5", {"evaluate_tags.rules.threshold": 0.5}),
    "splits": one("--splits coco-lt", {"load_splits.spec": "coco-lt"}),
    "unknown_labels": one("--unknown-labels ignore", {"evaluate_tags.options.unknown_labels": "ignore"}),
    "column": one("--column name", {"evaluate_tags.options.picture_column": "name"}),
    "label_column": one("--label-column tags", {"evaluate_tags.options.label_column": "tags"}),
    **table_cases("evaluate_tags.options.table"),
    "as_json": one("--json", {"print_json.value.map": 0.5}),
}
COMPARE = {
    "first": one("", {"compare_tags.first": "other"}, argument=1),
    "second": one("", {"compare_tags.second": "other"}, argument=2),
    "truth": one("--truth PLACE/t", {"compare_tags.truth": "PLACE/t"}),
    "difficult": one("--difficult ignore", {"compare_tags.rules.difficult": "ignore"}),
    "top_k": one("--top-k 4", {"compare_tags.rules.top_k": 4}),
    "threshold": one("--threshold 0.5", {"compare_tags.rules.threshold": 0.5}),
    "common": one("--common", {"compare_tags.only_common": True}),
    "draws": one("--draws 7", {"compare_tags.draws": 7}),
    "seed": one("--seed 3", {"compare_tags.seed": 3}),
    "unknown_labels": one("--unknown-labels ignore", {"compare_tags.options.unknown_labels": "ignore"}),
    "column": one("--column name", {"compare_tags.options.picture_column": "name"}),
    "label_column": one("--label-column tags", {"compare_tags.options.label_column": "tags"}),
    **table_cases("compare_tags.options.table"),
    "as_json": one("--json", {"print_json.value.items": 3}),
}
REPRODUCED = "reproduce.protocol"
REPRODUCE = {
    "name": one(
        "taidpt-coco-lt", {f"{REPRODUCED}.name": "taidpt-coco-lt", f"{REPRODUCED}.": ...}, without="taidpt-voc2007"
    ),
    "data": one("--data PLACE/d", {"reproduce.data": "PLACE/d"}),
    "out": one("--out PLACE/q", {"reproduce.out": "PLACE/q", "_describe.folder": "PLACE/q"}),
    "model": one(
        "--model local-dir:x", {f"{REPRODUCED}.model.name": "local-dir:x", f"{REPRODUCED}.model.pretrained": ""}
    ),
    "miniature": one("--miniature", {f"{REPRODUCED}.": ..., "reproduce.data": "PLACE/o/data"}),
    "show": one("--list", {"_list.as_json": False, "reproduce.": ..., "_describe.": ...}),
    "device": one("--device cpu", {"reproduce.device": "cpu"}),
    "as_json": one("--json", {"print_json.value": {}, "_describe.": ...}),
}
REVIEW = {
    "tags": one("", {"_open.tags": "other", "journal.": ...}, argument=1),
    "images": one("--images PLACE/i", {"_open.images": "PLACE/i"}),
    "store": one("--store STORE", {"_heatmaps.store": "STORE"}),
    "prompts": one("--prompts PLACE/p", {"_heatmaps.prompts": "PLACE/p"}),
    "journal": one("--journal PLACE/j", {"journal.path": "PLACE/j"}),
    "carry_over": one("--carry-over", {"journal.carry_over": True}),
    "free_words": one("--free-words", {"session.free_words": True}),
    "reviewer": one("--reviewer me", {"journal.by": "me"}),
    "most": one("--most 3", {"_open.most": 3}),
    "follow_links": one("--follow-links", {"_open.follow_links": True}),
    "port": one("--port 0", {"listen.port": 0}),
    "cache": one("--thumbnail-cache PLACE/c", {"cache.folder": "PLACE/c"}),
    "cache_megabytes": one("--thumbnail-cache-size 5", {"cache.max_bytes": 5_000_000}),
    "workers": one("--workers 3", {"thumbnails.workers": 3}),
    "as_json": one("--json", {"print_json.value.pictures": 1}),
}
REPORT = {
    "tags": one("", {"_open.tags": "other", "write_report.title": "other"}, argument=1),
    "images": one("--images PLACE/i", {"_open.images": "PLACE/i"}),
    "out": one("--out PLACE/q", {"write_report.out": "PLACE/q"}),
    "decisions": one("--decisions PLACE/d", {"read_decisions.path": "PLACE/d", "write_report.decisions": ...}),
    "side": one("--thumbnail-size 99", {"write_report.side": 99, "estimate_report.side": 99}),
    "most": one("--most 3", {"_open.most": 3}),
    "follow_links": one("--follow-links", {"_open.follow_links": True}),
    "workers": one("--workers 31", {"write_report.workers": 31, "estimate_report.workers": 31}),
    "as_json": one("--json", {"print_json.value.pictures": 1}),
}
INFO = {
    "store": one("", {"ledger.self.path": "STORE2"}, argument=1, beside="--failed"),
    "failed": one("--failed", {"ledger.self.path": "STORE"}),
    "as_json": one("--json", {"print_json.value.kind": "images"}),
}
VERIFY = {
    "store": one("", {"verify_store.store": "STORE2"}, argument=1),
    "repair": one("--repair", {"repair_store.store": "STORE"}),
    "quick": one("--quick", {"verify_store.deep": False}),
    "as_json": one("--json", {"print_json.value": {}}),
}
COMPACT = {
    "store": one("", {"compact_store.store": "STORE2"}, argument=1),
    "as_json": one("--json", {"print_json.value": {}}),
}
DOCTOR = {
    "model": one("--model RN101", {"examine.model": "RN101"}),
    "pretrained": one("--pretrained yfcc15m", {"examine.pretrained": "yfcc15m"}),
    "as_json": one("--json", {"print_json.value": ()}),
}
DEMO = {
    "out": one("--out PLACE/d", {"run_demo.out": "PLACE/d"}),
    "captions": one("--captions 300", {"run_demo.captions": 300}),
    "as_json": one("--json", {"print_json.value": {}}),
}
BENCH = {
    "rounds": one("--rounds 4", {"run.config.rounds": 4}, beside="--quick"),
    "as_json": one("--json", {"_report.as_json": True}),
    "results": one("--results PLACE/r", {"_report.folder": "PLACE/r"}),
    "no_record": one("--no-record", {"_report.folder": None}),
}
QUICK = {"quick": one("--quick", {"run.config.quick": True, "run.config.": ..., "_report.folder": None})}
DEVICE = {"device": one("--device cuda", {"run.config.device": "cuda"})}
THREADS = {"threads": one("--threads 2", {"_set_threads.threads": 2})}
CLASS_NUMBERS = {"classes": one("--classes 7,9", {"run.config.classes": (7, 9)})}
CLASSES = {"classes": one("--classes 7", {"run.config.classes": 7})}


def cases_of(cases: str) -> dict[str, Case]:
    return {"cases": one(f"--cases {cases}", {"run.config.cases": (cases,)})}


class Command(NamedTuple):
    """How a command is run, up to where, and what its options change."""

    arguments: str
    stop: Any
    cases: dict[str, Case]


COMMANDS = {
    "tune": Command("tune STORE --vocabulary voc20 --out PLACE/p", tune_stops, TUNE),
    "cache images": Command("cache images SOURCE PLACE/s.zarr", cache_images_stops, CACHE_IMAGES),
    "annotate": Command("annotate SOURCE --out PLACE/r --vocabulary voc20", annotate_stops, ANNOTATE),
    "cache texts": Command("cache texts FILE PLACE/s.zarr", cache_texts_stops, CACHE_TEXTS),
    "tag": Command("tag STORE --vocabulary voc20 --out PLACE/t.parquet", tag_stops, TAG),
    "ensemble": Command("ensemble A.parquet B.parquet --out PLACE/e.parquet", ensemble_stops, ENSEMBLE),
    "calibrate": Command(
        "calibrate STORE --out PLACE/c --truth PLACE/t --vocabulary voc20", calibrate_stops, CALIBRATE
    ),
    "export": Command("export TAGS --to coco --out PLACE/o", export_stops, EXPORT),
    "search": Command("search STORE dog", search_stops, SEARCH),
    "explain": Command("explain 0.png --out PLACE/p", explain_stops, EXPLAIN),
    "evaluate": Command("evaluate TAGS --truth PLACE/truth", evaluate_stops, EVALUATE),
    "reproduce": Command("reproduce taidpt-voc2007 --out PLACE/o", reproduce_stops, REPRODUCE),
    "compare": Command("compare TAGS TAGS2 --truth PLACE/truth", compare_stops, COMPARE),
    "review": Command("review TAGS --images PLACE", review_stops, REVIEW),
    "report": Command("report TAGS --images PLACE --out PLACE/o", report_stops, REPORT),
    "info": Command("info STORE", info_stops, INFO),
    "verify": Command("verify STORE", store_stops, VERIFY),
    "compact": Command("compact STORE", store_stops, COMPACT),
    "doctor": Command("doctor", doctor_stops, DOCTOR),
    "demo": Command("demo --out PLACE", demo_stops, DEMO),
    "bench score": Command(
        "bench score",
        bench_stops,
        {
            **(BENCH | QUICK | DEVICE | THREADS | CLASS_NUMBERS | cases_of("rn50-448")),
            "pooling": one("--pooling max", {"run.config.poolings": ("max",)}),
            "rows": one("--rows int8", {"run.config.row_dtypes": ("int8",)}),
        },
    ),
    "bench tune": Command(
        "bench tune",
        bench_stops,
        {
            **(BENCH | QUICK | DEVICE | THREADS | CLASSES | cases_of("step")),
            "sentences": one("--sentences 33", {"run.config.sentences": 33}),
        },
    ),
    "bench encode": Command(
        "bench encode",
        bench_stops,
        {
            **(BENCH | QUICK | DEVICE | THREADS | cases_of("photos")),
            "batch": one("--batch 5", {"run.config.batch": 5}),
        },
    ),
    "bench cache": Command(
        "bench cache",
        bench_stops,
        {
            **(BENCH | QUICK | THREADS | CLASSES | cases_of("sequential")),
            "items": one("--items 2048", {"run.config.items": 2048}),
        },
    ),
    "bench corpus": Command(
        "bench corpus",
        bench_stops,
        {
            **(BENCH | CLASS_NUMBERS | cases_of("text")),
            "quick": one("--quick", {"run.config.rounds": 5, "run.config.": ..., "_report.folder": None}),
            "sentences": one("--sentences 33", {"run.config.sentences": 33}),
            "file": one("--file PLACE/f", {"run.config.file": "PLACE/f"}),
        },
    ),
    "bench scaling": Command(
        "bench scaling",
        bench_stops,
        {
            **(BENCH | THREADS | cases_of("patches")),
            "quick": one("--quick", {"run.config.rounds": 3, "run.config.": ..., "_report.folder": None}),
        },
    ),
    "bench shell": Command(
        "bench shell",
        bench_stops,
        {
            **(BENCH | cases_of("help")),
            "quick": one("--quick", {"run.config.rounds": 3, "run.config.": ..., "_report.folder": None}),
            "pictures": one("--pictures 33", {"run.config.pictures": 33}),
        },
    ),
    "bench all": Command(
        "bench all",
        book_stops,
        {
            "out": one("--out PLACE/b", {"run_all.folder": "PLACE/b", "write_book.folder": "PLACE/b"}),
            "only_write": one("--only-write", {"run_all.": ...}),
            "quick": one("--quick", {"run_all.quick": True, "write_book.quick": True}, beside="--out PLACE/b"),
        },
    ),
}
WITHOUT_CHANGE: dict[tuple[str, tuple[str, ...]], dict[str, Any]] = {}
"""What the work of a command was handed, kept for all its options."""
# These print what their work gives back, so they are run to the end.
PRINTED = {("cache images", "as_json"), ("cache texts", "as_json"), ("tag", "as_json")}


def commands_of(group: Any, path: tuple[str, ...] = ()) -> dict[str, Any]:
    if not hasattr(group, "commands"):
        return {" ".join(path): group}
    parts = (commands_of(command, (*path, name)) for name, command in group.commands.items())
    return {name: command for part in parts for name, command in part.items()}


def test_every_option_of_every_command_has_a_case():
    options = {
        (name, parameter.name)
        for name, command in commands_of(typer.main.get_command(app)).items()
        for parameter in command.params
    }
    assert options == {(name, option) for name, command in COMMANDS.items() for option in command.cases} | PRINTED


@pytest.fixture
def handed(monkeypatch, tmp_path, filled_store):
    """Runs a command to where its work begins; gives what the work was handed."""
    (tmp_path / "second.zarr").symlink_to(filled_store)
    places = {"STORE2": str(tmp_path / "second.zarr"), "STORE": str(filled_store), "PLACE": str(tmp_path)}

    def named(value: Any) -> Any:
        """Places by their short names."""
        if isinstance(value, tuple):
            return tuple(map(named, value))
        for short, path in places.items():
            value = value.replace(path, short) if isinstance(value, str) else value
        return value

    def run(stop: Any, arguments: Sequence[str]) -> dict[str, Any]:
        given = list(arguments)
        for short, path in places.items():
            given = [argument.replace(short, path) for argument in given]
        with monkeypatch.context() as patch:
            recorder = Recorder(patch)
            stop(recorder)
            with contextlib.suppress(BegunError):
                app(given, standalone_mode=False)
        return {name: named(value) for name, value in recorder.seen.items()}

    return run


@pytest.mark.parametrize(
    ("command", "option"), [(name, option) for name, command in COMMANDS.items() for option in command.cases]
)
def test_an_option_arrives_where_it_is_meant_to(command, option, handed):
    arguments, stop, cases = COMMANDS[command]
    case = cases[option]
    plain = [*arguments.split(), *case.beside]
    changed = [*(word for word in plain if word not in case.without), *case.given]
    if case.argument is not None:
        changed[case.argument] = "STORE2" if changed[case.argument] == "STORE" else "other"
    if (command, case.beside) not in WITHOUT_CHANGE:
        WITHOUT_CHANGE[command, case.beside] = handed(stop, plain)
    before, after = WITHOUT_CHANGE[command, case.beside], handed(stop, changed)
    wider = tuple(name for name, value in case.changes.items() if value is ...)
    for name, value in case.changes.items():
        if name in wider:
            continue
        assert name in after, sorted(after)
        assert after[name] == value
        assert name not in before or before[name] != value
    both = set(before) & set(after)
    changed_too = {name for name in both if before[name] != after[name] and not name.startswith(wider)}
    assert changed_too <= set(case.changes)


@pytest.mark.parametrize("arguments", ["cache images PICTURES PLACE/s", "cache texts PLACE/t.txt PLACE/s", "tag STORE"])
def test_json_is_printed_where_it_is_asked_for(arguments, tai, filled_store, picture_folder, tiny_model, tmp_path):
    (tmp_path / "t.txt").write_text("a dog\n")
    places = {"STORE": filled_store, "PLACE": tmp_path, "PICTURES": picture_folder}
    for short, path in places.items():
        arguments = arguments.replace(short, str(path))
    more = ["--vocabulary", "voc20", "--out", tmp_path / "o.parquet"] if arguments.startswith("tag") else []
    outcome = tai(*arguments.split(), "--model", tiny_model, *more, "--json")
    assert outcome.status in (0, 1)  # some pictures are broken
    (summary,) = outcome.json()
    assert summary["seconds"] > 0
