"""``tai tune``: labelled sentences become prompts."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tai_engine.cli.options import (
    DEFAULT_MODEL,
    DEFAULT_PRETRAINED,
    AsJson,
    Device,
    EncoderChoice,
    MergeDuplicates,
    UnknownLabels,
    VocabularyChoice,
    VocabularyColumn,
    say_unread,
)
from tai_engine.cli.output import ProgressBar, print_json, print_table, progress_bar, remarks, results
from tai_engine.errors import UserError, unknown_choice
from tai_engine.files import check_place

if TYPE_CHECKING:
    from tai_engine.encoders import Encoder
    from tai_engine.store import FeatureStore
    from tai_engine.tuning import StepProgress, Trial, TuningConfig, TuningResult, TuningTask
    from tai_engine.vocabulary import Vocabulary

WORST_CLASSES = 5
RECIPES = ("auto", "published")


def tune(
    vocabulary: Annotated[str, typer.Option("--vocabulary", help="The vocabulary that labelled the sentences.")],
    out: Annotated[Path, typer.Option("--out", help="The prompt set, a .safetensors file for `tai tag --prompts`.")],
    store: Annotated[
        str | None,
        typer.Argument(help="Labelled sentences (`tai cache texts --vocabulary`), or pictures with --labels."),
    ] = None,
    sentences: Annotated[
        Path | None,
        typer.Option(
            "--sentences",
            help="In place of a store: a file of sentences, or 'builtin' for captions of 4,040 photographs; they are "
            "labelled and encoded into OUT with .sentences.zarr added.",
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", help="Folder of checkpoints, figures and the loss curve; default OUT with .run added."),
    ] = None,
    vocabulary_column: VocabularyColumn = None,
    merge_duplicates: MergeDuplicates = False,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", help="STORE holds pictures: their labels, in any form that `tai evaluate` reads."),
    ] = None,
    unknown_labels: UnknownLabels = "error",
    system: Annotated[
        str,
        typer.Option(
            "--system", help="tai-dpt (from sentences), coop (few pictures) or dualcoop (partly labelled ones)."
        ),
    ] = "tai-dpt",
    known: Annotated[
        float | None, typer.Option("--known", help="Share of the --labels that are known, drawn by --seed; default 1.")
    ] = None,
    shots: Annotated[
        int | None, typer.Option("--shots", help="Labelled pictures of each class to train on; default all.")
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            help="What is not said below: auto takes what comes with the model, if anything does ('photos'); "
            "published the defaults below.",
        ),
    ] = "auto",
    epochs: Annotated[int | None, typer.Option("--epochs", help="Passes over the sentences; default 20.")] = None,
    learning_rate: Annotated[float | None, typer.Option("--lr", help="Of SGD; default 1e-4.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Sentences a step; default 512.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Default 1.")] = None,
    loss: Annotated[str | None, typer.Option("--loss", help="ranking (default), asl, bce, focal, ...")] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", help="Of the softmax over a sentence's words; default 50.")
    ] = None,
    image_temperature: Annotated[
        float | None, typer.Option("--image-temperature", help="To tag pictures with; default 0.8 of --temperature.")
    ] = None,
    find_constants: Annotated[
        bool,
        typer.Option(
            "--find-constants",
            help="First find learning rate and temperature by short runs, judged on held-out sentences: for models "
            "other than OpenAI's.",
        ),
    ] = False,
    negatives: Annotated[str | None, typer.Option("--negatives", help="none (default), random or hard.")] = None,
    negative_share: Annotated[
        float | None, typer.Option("--negative-share", help="Part of a batch that is mined; default 0.25.")
    ] = None,
    refresh: Annotated[
        int, typer.Option("--refresh", min=0, help="Mine again after so many steps; 0 means every epoch.")
    ] = 0,
    contexts: Annotated[int | None, typer.Option("--contexts", help="Learned vectors a prompt; default 16.")] = None,
    class_specific: Annotated[
        bool | None,
        typer.Option("--class-specific/--shared", help="Contexts for each class alone; default shared by all."),
    ] = None,
    position: Annotated[
        str | None, typer.Option("--position", help="Of the name: end (default), middle, front.")
    ] = None,
    init: Annotated[
        str | None, typer.Option("--init", help="Start from words such as 'a photo of a', or from a tuned prompt set.")
    ] = None,
    held_out: Annotated[
        float | None, typer.Option("--held-out", help="Share of the sentences kept from training; default 0.05.")
    ] = None,
    keep: Annotated[str | None, typer.Option("--keep", help="last (default) or best epoch, by held-out mAP.")] = None,
    noise: Annotated[
        float | None, typer.Option("--noise", help="Length of noise added to the sentences' vectors; default 0.")
    ] = None,
    start_share: Annotated[
        float | None,
        typer.Option("--start-share", help="Of the class vectors at the start in those that come out; default 0."),
    ] = None,
    normalise: Annotated[
        str | None,
        typer.Option(
            "--normalise",
            help="Of a picture's scores, when it is tagged with these prompts; default none, as published.",
        ),
    ] = None,
    patience: Annotated[
        int | None, typer.Option("--patience", help="Stop after so many epochs without a better held-out mAP.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Whose text tower; default the store's own, or RN50 with --sentences."),
    ] = None,
    pretrained: Annotated[str, typer.Option("--pretrained", help="Weights of --model.")] = "",
    device: Device = "auto",
    precision: Annotated[str, typer.Option("--precision", help="Of the text tower: fp32, bf16 or fp16.")] = "fp32",
    cuda_graphs: Annotated[
        bool, typer.Option("--cuda-graphs", help="On a GPU and with few classes: record the text tower's work once.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Tune prompts on sentences, or on labelled pictures; run it again after an interruption to go on."""
    from tai_engine.tuning import NegativeConfig, TuningConfig

    if recipe not in RECIPES:
        raise unknown_choice("recipe", recipe, RECIPES)
    if (store is None) == (sentences is None):
        raise UserError(
            "Tuning needs sentences: name a store of them (see `tai cache texts`), or give --sentences with a file or "
            "'builtin', and not both."
        )
    check_place(out)
    folder = run or out.with_name(out.name + ".run")
    check_place(folder, folder=True)
    mining = {"strategy": negatives or "none", "share": negative_share, "seed": seed, "refresh": refresh or None}
    said = {
        "n_contexts": contexts,
        "class_specific": class_specific,
        "position": position,
        "loss": loss,
        "text_temperature": temperature,
        "image_temperature": image_temperature,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "held_out": held_out,
        "patience": patience,
        "keep": keep,
        "noise": noise,
        "start_share": start_share,
        "normalise": normalise,
        "known": known,
        "shots": shots,
    }
    config = TuningConfig.of_system(system, negatives=NegativeConfig(**_given(mining)), **_given(said))
    if config.negatives.strategy == "none" and (negative_share is not None or refresh):
        option = "--refresh says when" if negative_share is None else "--negative-share says how many"
        raise UserError(f"{option} sentences are mined, but none are: add --negatives hard.")
    if find_constants and (learning_rate is not None or temperature is not None):
        raise UserError("--find-constants looks for the values of --lr and --temperature: leave these out, or that.")
    job = TuneJob(
        store=store,
        sentences=sentences,
        vocabulary=VocabularyChoice(vocabulary, merge_duplicates, vocabulary_column),
        out=out,
        folder=folder,
        config=config,
        recipe=recipe,
        said=frozenset(_given(said)),
        encoder=EncoderChoice(model, pretrained, device, precision),
        init=init,
        find_constants=find_constants,
        cuda_graphs=cuda_graphs,
        as_json=as_json,
        labels=labels,
        unknown_labels=unknown_labels,
    )
    run_job(job)


@dataclass(frozen=True)
class TuneJob:
    """What ``tai tune`` was told.

    Attributes:
        store: of labelled sentences; None makes one of ``sentences``.
        sentences: a file of them, or ``builtin``.
        vocabulary: that labelled them.
        out: the prompt set.
        folder: of checkpoints and figures.
        config: what the user said, and published settings.
        recipe: whose settings count where the user said nothing, one of ``RECIPES``.
        said: names of the settings that the user said.
        encoder: whose text tower.
        init: words, or the file of a prompt set; None draws contexts at random.
        find_constants: whether learning rate and temperature are looked for first.
        cuda_graphs: whether the text tower's work is recorded.
        as_json: JSON in place of tables.
        labels: of pictures; None for a store of sentences.
        unknown_labels: what becomes of labels that are no class, see `TruthOptions`.
    """

    store: str | None
    sentences: Path | None
    vocabulary: VocabularyChoice
    out: Path
    folder: Path
    config: TuningConfig
    recipe: str
    said: frozenset[str]
    encoder: EncoderChoice
    init: str | None
    find_constants: bool
    cuda_graphs: bool
    as_json: bool
    labels: Path | None = None
    unknown_labels: str = "error"


def run_job(job: TuneJob) -> None:
    """Tune, save the prompts and say how it went.

    Raises:
        UserError: as the store, the vocabulary, the encoder and tuning do.
    """
    from tai_engine import tuning
    from tai_engine.evaluation.truth import TruthOptions, load_truth
    from tai_engine.prompts.prompt_set import PromptSet
    from tai_engine.store import FeatureStore

    words = job.vocabulary.load()
    encoder = None
    if job.sentences is not None:
        encoder = job.encoder.open_or(DEFAULT_MODEL, DEFAULT_PRETRAINED)
        store = cache_job_sentences(job.sentences, words, encoder, sentences_place(job.out))
    else:
        store = FeatureStore.open(str(job.store))
    source: tuning.SentenceStore = store
    if job.labels is not None:
        truth = load_truth(job.labels, words.names, TruthOptions(job.unknown_labels))
        settings = job.config
        source = tuning.TrainingPictures(store, truth, known=settings.known, shots=settings.shots, seed=settings.seed)
    elif job.sentences is None:
        tuning.check_store(store, words)
    config, start = settings_for(job, store)
    # A prompt set where a place is named, otherwise words.
    is_place = start is not None and (start.endswith(".safetensors") or os.path.exists(start))  # noqa: PTH110
    init = PromptSet.load(start) if start is not None and is_place else start
    encoder = encoder or job.encoder.open(store)
    say_unread(encoder.unread_words(words.prompt_names), words)
    task = tuning.TuningTask.prepare(source, encoder, words, config, init, cuda_graphs=job.cuda_graphs)
    if job.find_constants:
        config = _find(task, job, config)
    with progress_bar("Tuning") as bar:
        result = tuning.tune(task, config, job.folder, show_steps(bar))
    result.prompts.save(job.out)
    if job.as_json:
        print_json(_summary(result, config, job.out, job.folder))
    else:
        _describe(result, config, job.out, job.folder)
    for remark in result.remarks:
        remarks.print(remark)


def sentences_place(out: Path) -> Path:
    """Where the store of ``--sentences`` lies: beside the prompts."""
    return out.with_name(out.name + ".sentences.zarr")


def cache_job_sentences(sentences: Path, words: Vocabulary, encoder: Encoder, place: Path) -> FeatureStore:
    """The store of the sentences that name a class, made or gone on with; says what the classes have to learn from.

    Raises:
        UserError: as `LabelledCorpus` and `cache_sentences`.
    """
    from tai_engine.caching.texts import cache_corpus
    from tai_engine.cli.cache import show
    from tai_engine.sentences.built_in import BUILT_IN, built_in_captions
    from tai_engine.sentences.corpus import CorpusOptions, LabelledCorpus, published_templates
    from tai_engine.store import FeatureStore

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


def settings_for(job: TuneJob, store: FeatureStore) -> tuple[TuningConfig, str | None]:
    """The settings, and what contexts start from: the user's, else those of the model, else published ones."""
    from tai_engine.encoders.embedded import constants_of

    model = job.encoder.model or str(store.spec.provenance.get("model", ""))
    # A model's own settings are for sentences.
    constants = constants_of(model) if job.recipe == "auto" and job.config.system == "tai-dpt" else None
    if constants is None:
        return job.config, job.init
    brought = {name: value for name, value in constants.tuning.items() if name not in job.said}
    remarks.print(
        f"Settings that come with the model {model!r} ({', '.join(brought)}): --recipe published is without them."
    )
    return replace(job.config, **brought), constants.initial_words if job.init is None else job.init


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """What the user said; the rest stays as the config has it."""
    return {name: value for name, value in options.items() if value is not None}


def _find(task: TuningTask, job: TuneJob, config: TuningConfig) -> TuningConfig:
    """The recipe with the constants that were found; a run that is gone on with has them already."""
    from tai_engine import tuning

    def show(done: int, total: int, trial: Trial) -> None:
        bar.update(done, total, f"lr {trial.learning_rate:g}, temperature {trial.text_temperature:g}")

    with progress_bar("Finding constants") as bar:
        found = tuning.find_constants(task, config, folder=job.folder, progress=show)
    if not job.as_json:
        columns = ("learning rate", "temperature", "mAP % merged", "coarse", "fine")
        rows = [
            (t.learning_rate, t.text_temperature, *map(_percent, (t.merged, t.coarse, t.fine))) for t in found.trials
        ]
        print_table("Held-out sentences after short runs", columns, rows)
    remarks.print(found.describe())
    return found.apply(config)


def show_steps(bar: ProgressBar) -> Callable[[StepProgress], None]:
    """A callback that draws the progress of a run."""

    def update(progress: StepProgress) -> None:
        note = f"epoch {progress.epoch}, loss {progress.loss:.4g}, {progress.steps_per_second:.2f} steps/s"
        if progress.held_out_map is not None:
            note += f", held-out mAP {100 * progress.held_out_map:.1f} %"
        bar.update(progress.step, progress.steps, note)

    return update


def _percent(value: float | None) -> object:
    return "" if value is None else 100 * value


def _summary(result: TuningResult, config: TuningConfig, out: Path, folder: Path) -> dict[str, Any]:
    last = result.history[-1]
    return {
        "prompts": str(out),
        "run": str(folder),
        "classes": len(result.prompts.class_names),
        "training_sentences": result.training_sentences,
        "held_out_sentences": result.held_out_sentences,
        "epochs": len(result.history),
        "kept_epoch": result.epoch,
        "steps": result.steps,
        "loss": last.loss,
        "held_out_map": None if result.held_out is None else result.held_out.merged.mean,
        "held_out_loss": None if result.held_out is None else result.held_out.loss,
        "steps_per_second": last.steps_per_second,
        "seconds": result.seconds,
        "learning_rate": config.learning_rate,
        "text_temperature": config.text_temperature,
        "image_temperature": config.temperature_for_images,
        "remarks": list(result.remarks),
    }


def _describe(result: TuningResult, config: TuningConfig, out: Path, folder: Path) -> None:
    """The epochs, the worst classes, and the outcome in a sentence or two."""
    print_table(
        "Tuning",
        ("epoch", "loss", "held-out loss", "mAP % merged", "coarse", "fine", "learning rate", "steps/s"),
        [
            (
                m.epoch,
                m.loss,
                "" if m.held_out_loss is None else m.held_out_loss,
                *map(_percent, (m.held_out_map, m.held_out_map_coarse, m.held_out_map_fine)),
                m.learning_rate,
                m.steps_per_second,
            )
            for m in result.history
        ],
    )
    judged = [row for row in result.per_class if row["ap_merged"] is not None]
    worst = sorted(judged, key=lambda row: float(str(row["ap_merged"])))[:WORST_CLASSES]
    if worst:
        names = ", ".join(f"{row['class']} {100 * float(str(row['ap_merged'])):.0f}" for row in worst)
        results.print(f"Lowest AP % on held-out sentences: {names}")
    results.print(
        f"{len(result.prompts.class_names)} classes tuned on {result.training_sentences:,} {result.trained_on} "
        f"({result.held_out_sentences:,} held out), {result.steps:,} steps, contexts of epoch {result.epoch} -> {out}"
    )
    results.print(
        f"Pictures are tagged with the temperature {config.temperature_for_images:g}; figures and curve: {folder}"
    )
