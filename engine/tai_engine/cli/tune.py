"""``tai tune``: labelled sentences become prompts."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from functools import partial
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
    VocabularyChoice,
    VocabularyColumn,
    say_unread,
)
from tai_engine.cli.output import print_json, progress_bar, remarks
from tai_engine.cli.truth_options import UnknownLabels
from tai_engine.cli.tune_output import describe, print_trials, show_step, show_trial, summary
from tai_engine.errors import UserError, unknown_choice
from tai_engine.files import check_place

if TYPE_CHECKING:
    from tai_engine.tuning import TuningConfig

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
    from tai_engine import tuning
    from tai_engine.evaluation.truth import TruthOptions, load_truth
    from tai_engine.prompts.prompt_set import PromptSet
    from tai_engine.store import FeatureStore

    # What is asked for.
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
    settings: dict[str, Any] = {
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
    mining: dict[str, Any] = {
        "strategy": negatives or "none",
        "share": negative_share,
        "refresh": refresh or None,
        "seed": seed,
    }
    said, mined = ({name: value for name, value in each.items() if value is not None} for each in (settings, mining))
    config = tuning.TuningConfig.of_system(system, negatives=tuning.NegativeConfig(**mined), **said)
    if config.negatives.strategy == "none" and (negative_share is not None or refresh):
        option = "--refresh says when" if negative_share is None else "--negative-share says how many"
        raise UserError(f"{option} sentences are mined, but none are: add --negatives hard.")
    if find_constants and (learning_rate is not None or temperature is not None):
        raise UserError("--find-constants looks for the values of --lr and --temperature: leave these out, or that.")
    # What it is tuned on, by which text tower, and from where.
    words = VocabularyChoice(vocabulary, merge_duplicates, vocabulary_column).load()
    choice, encoder = EncoderChoice(model, pretrained, device, precision), None
    if sentences is not None:
        from tai_engine.cli.sentences_option import cache_sentences_of

        encoder = choice.open_or(DEFAULT_MODEL, DEFAULT_PRETRAINED)
        features = cache_sentences_of(sentences, words, encoder, out)
    else:
        features = FeatureStore.open(str(store))
    source: tuning.SentenceStore = features
    if labels is not None:
        truth = load_truth(labels, words.names, TruthOptions(unknown_labels))
        source = tuning.TrainingPictures(features, truth, known=config.known, shots=config.shots, seed=config.seed)
        if few := tuning.too_few_for(config.system, len(source)):
            remarks.print(few)
    elif sentences is None:
        tuning.check_store(features, words)
    if recipe == "auto":
        config, init = with_model_settings(config, init, said, model or str(features.spec.provenance.get("model", "")))
    encoder = encoder or choice.open(features)
    say_unread(encoder.unread_words(words.prompt_names), words)
    # A prompt set where a place is named, otherwise words.
    is_place = init is not None and (init.endswith(".safetensors") or os.path.exists(init))  # noqa: PTH110
    start = PromptSet.load(init) if init is not None and is_place else init
    # The run.
    task = tuning.TuningTask.prepare(source, encoder, words, config, start, cuda_graphs=cuda_graphs)
    if find_constants:
        with progress_bar("Finding constants") as bar:
            found = tuning.find_constants(task, config, folder=folder, progress=partial(show_trial, bar))
        config = found.apply(config)
        if not as_json:
            print_trials(found.trials)
        remarks.print(found.describe())
    with progress_bar("Tuning") as bar:
        result = tuning.tune(task, config, folder, partial(show_step, bar))
    result.prompts.save(out)
    if as_json:
        print_json(summary(result, config, out, folder))
    else:
        describe(result, out, folder)
    for remark in result.remarks:
        remarks.print(remark)


def with_model_settings(
    config: TuningConfig, init: str | None, said: Collection[str], model: str
) -> tuple[TuningConfig, str | None]:
    """The settings and what contexts start from: what the user said, else what comes with the model, if anything does.

    Args:
        config: what the user said, and published settings.
        init: as ``--init``.
        said: names of the settings that the user said.
        model: whose text tower it is.
    """
    from tai_engine.encoders.embedded import constants_of

    # A model's own settings are for sentences.
    constants = constants_of(model) if config.system == "tai-dpt" else None
    if constants is None:
        return config, init
    brought = {name: value for name, value in constants.tuning.items() if name not in said}
    remarks.print(
        f"Settings that come with the model {model!r} ({', '.join(brought)}): --recipe published is without them."
    )
    return replace(config, **brought), constants.initial_words if init is None else init
