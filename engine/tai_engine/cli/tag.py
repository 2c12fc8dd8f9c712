"""``tai tag``: a store and a vocabulary become a file of tags."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tai_engine.cli.options import (
    AsJson,
    Device,
    EncoderChoice,
    MergeDuplicates,
    Precision,
    VocabularyChoice,
    VocabularyColumn,
)
from tai_engine.cli.output import print_json, progress_bar, remarks, results
from tai_engine.cli.results_option import OR_RESULTS, prompts_of, results_at, store_at
from tai_engine.cli.runners import Devices, Processes, RayAddress, Runner, check_tag_output, tag_elsewhere, workplaces
from tai_engine.errors import MANY, UserError

if TYPE_CHECKING:
    from tai_engine.prompts.prompt_set import PromptSet
    from tai_engine.tagging.batch_loop import TagReport
    from tai_engine.tagging.scoring import ScoringConfig
    from tai_engine.vocabulary import Vocabulary


def tag(
    store: Annotated[
        str, typer.Argument(help=f"A store that `tai cache images` made, its folder or address, {OR_RESULTS}.")
    ],
    out: Annotated[
        str, typer.Option("--out", help="The file of tags; its suffix chooses the format. With --runner ray, a folder.")
    ],
    vocabulary: Annotated[
        str | None,
        typer.Option(
            "--vocabulary",
            help="everyday, coco80, lvis1203, voc20, nuswide81, or a file of names: text, TOML, JSON or a table; "
            "a folder of `tai annotate` has words of its own.",
        ),
    ] = None,
    vocabulary_column: VocabularyColumn = None,
    merge_duplicates: MergeDuplicates = False,
    prompts: Annotated[Path | None, typer.Option("--prompts", help="A saved prompt set in place of zero-shot.")] = None,
    templates: Annotated[
        list[str] | None,
        typer.Option("--template", help="Zero-shot template with {} for the name; repeat for several; 'imagenet80'."),
    ] = None,
    compound: Annotated[
        bool, typer.Option("--compound", help="Zero-shot words also in company: 'a photo of a dog and a cat'.")
    ] = False,
    sentences: Annotated[
        str | None,
        typer.Option(
            "--sentences", help="Move words towards the sentences that name them: a store of `tai cache texts`."
        ),
    ] = None,
    linear_head: Annotated[
        bool, typer.Option("--linear-head", help="With --sentences: learn words' vectors from all of them (seconds).")
    ] = False,
    patches: Annotated[
        bool, typer.Option("--patches", help="Learn from the patches of this store, without labels, how words look.")
    ] = False,
    top_k: Annotated[int | None, typer.Option("--top-k", help="At most so many tags per picture; default all.")] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="The least score of a tag, after --normalise.")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option("--calibration", help="Of `tai calibrate`: fills the column probability.")
    ] = None,
    min_precision: Annotated[
        float | None,
        typer.Option("--min-precision", help="Write a tag where the calibration promises so much, such as 0.9."),
    ] = None,
    min_probability: Annotated[
        float | None,
        typer.Option("--min-probability", help="Write a tag that is so probable by the calibration, such as 0.5."),
    ] = None,
    always_top: Annotated[
        int, typer.Option("--always-top", help="So many tags per picture whatever their threshold.")
    ] = 0,
    never: Annotated[
        Path | None, typer.Option("--never", help="A text file of words that are never written, one a line.")
    ] = None,
    which: Annotated[
        str | None,
        typer.Option("--score", help="coarse, fine or merged; default merged where features allow it."),
    ] = None,
    pooling: Annotated[str | None, typer.Option("--pooling", help="Over patches: softmax or max.")] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", help="Of the softmax over patches.")] = None,
    mix: Annotated[float | None, typer.Option("--mix", help="Share of the coarse score in the merged one.")] = None,
    normalise: Annotated[
        str | None,
        typer.Option(
            "--normalise",
            help="Of a picture's scores over all words: none, centre (minus the mean), standard (z-score) or softmax; "
            "default standard for zero-shot, and what the prompt set says for --prompts; not with fewer than 20 words.",
        ),
    ] = None,
    format_: Annotated[str | None, typer.Option("--format", help="parquet or jsonl, against the suffix.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="For the text tower; default the store's own.")] = None,
    pretrained: Annotated[str, typer.Option("--pretrained", help="Weights of --model.")] = "",
    device: Device = "auto",
    devices: Devices = "",
    processes: Processes = 0,
    runner: Runner = "local",
    ray_address: RayAddress = "",
    precision: Precision = "auto",
    as_json: AsJson = False,
) -> None:
    """Tag every picture of a store with your own words, without decoding a single one again."""
    from tai_engine.calibration.calibration import Calibration
    from tai_engine.encoders.embedded import constants_of
    from tai_engine.label_free.compound import with_compound_prompts
    from tai_engine.label_free.linear_head import with_linear_head
    from tai_engine.label_free.patch_gaussians import with_patch_gaussians
    from tai_engine.label_free.sentence_means import with_sentence_means
    from tai_engine.prompts.prompt_set import PromptSet
    from tai_engine.store import FeatureStore
    from tai_engine.tables.text_files import read_words
    from tai_engine.tagging.batch_loop import tag_store
    from tai_engine.tagging.choosing import without_effect
    from tai_engine.tagging.normalisation import why_not
    from tai_engine.tagging.tag_selection import Selection

    places = workplaces(runner, devices, processes, ray_address, device, all_gpus=False)
    check_tag_output(places, out, format_)
    if linear_head and sentences is None:
        raise UserError("--linear-head learns from sentences: add --sentences (a store of `tai cache texts`).")
    features = FeatureStore.open(store_at(store))
    if vocabulary is None and prompts is None:
        prompts = prompts_of(results_at(store))
    unwanted = () if never is None else read_words(never)
    selection = Selection(top_k, threshold, min_precision, min_probability, always_top, unwanted)
    calibrated = None if calibration is None else Calibration.load(calibration)
    if prompts is not None:
        if vocabulary is not None:
            raise UserError("--prompts already holds its vocabulary: leave --vocabulary out, or leave --prompts out.")
        for option, value in {
            "--template": templates,
            "--model": model,
            "--pretrained": pretrained,
            "--vocabulary-column": vocabulary_column,
            "--merge-duplicates": merge_duplicates,
            "--compound": compound,
        }.items():
            if value:
                raise UserError(f"{option} is for the words of --vocabulary: leave it out with --prompts.")
        prompt_set = PromptSet.load(prompts)
    elif vocabulary is None:
        raise UserError("Say what to tag with: --vocabulary (your words) or --prompts (a saved prompt set).")
    else:
        words = VocabularyChoice(vocabulary, merge_duplicates, vocabulary_column).load()
        encoder = EncoderChoice(model, pretrained, device, precision).of(features)
        wordings = templates_of(templates, words)
        prompt_set = encoder.zero_shot(words, wordings, says_unread=True)
        if compound:
            prompt_set = with_compound_prompts(prompt_set, encoder.encoder, words, wordings[0])
    if sentences is not None:
        taught = with_linear_head if linear_head else with_sentence_means
        prompt_set = taught(prompt_set, FeatureStore.open(sentences))
    if patches:
        prompt_set = with_patch_gaussians(prompt_set, features)
    scoring = scoring_of(prompt_set, features.spec.has_fine, which, pooling, temperature, mix, normalise)
    reason = why_not(scoring.normalise, len(prompt_set.class_names))
    if reason:
        remarks.print(reason)
    own = constants_of(str(features.spec.provenance.get("model") or ""))
    is_its_scale = scoring.which == "merged" and scoring.normalise == "standard" and not reason
    if own is not None and is_its_scale and top_k is not None and threshold is None and calibrated is None:
        remarks.print(
            f"Some words are near to every picture for this model: what scores below {own.tag_threshold:g} is rarely "
            f"right, and --threshold {own.tag_threshold:g} leaves it out.",
            style="yellow",
        )
    if strange := without_effect(unwanted, prompt_set.class_names):
        more = f" and {len(strange) - MANY:,} more" if len(strange) > MANY else ""
        shown = ", ".join(map(repr, strange[:MANY]))
        remarks.print(f"Words of --never that are no tag here: {shown}{more}.", highlight=False, markup=False)
    where = places.device if places.device == "auto" else str(_resolve_device(places.device))
    with progress_bar("Tagging") as bar:
        if places.are_elsewhere:
            report = tag_elsewhere(
                places, features, prompt_set, out, scoring, selection, calibrated, format=format_, progress=bar.update
            )
        else:
            report = tag_store(
                features,
                prompt_set,
                out,
                scoring,
                selection,
                calibration=calibrated,
                format=format_,
                device=where,
                progress=bar.update,
            )
    if as_json:
        print_json({**asdict(report), "items_per_second": report.items_per_second})
    else:
        for line in describe(report):
            results.print(line)


def _resolve_device(name: str) -> object:
    from tai_engine.encoders.devices import resolve_device  # torch takes seconds

    return resolve_device(name)


def describe(report: TagReport) -> list[str]:
    """The outcome, a line each."""
    lines = [
        f"{report.items:,} pictures, {report.tags:,} tags in {report.seconds:.1f} s "
        f"({report.items_per_second:,.0f} pictures/s) -> {report.path}"
    ]
    if report.resumed_items:
        lines.append(f"{report.resumed_items:,} of them were already tagged by the run before.")
    if report.items_without_features:
        lines.append(
            f"{report.items_without_features:,} pictures have no features; `tai info STORE --failed` says why."
        )
    return lines


def templates_of(given: list[str] | None, words: Vocabulary) -> list[str]:
    """What the user gave, else what the vocabulary brings, else CLIP's plain template."""
    from tai_engine.vocabulary import DEFAULT_TEMPLATE, imagenet_templates

    if not given:
        return list(words.templates) or [DEFAULT_TEMPLATE]
    return [text for name in given for text in (imagenet_templates() if name == "imagenet80" else (name,))]


def scoring_of(
    prompts: PromptSet,
    has_fine: bool,
    which: str | None,
    pooling: str | None,
    temperature: float | None,
    mix: float | None,
    normalise: str | None,
) -> ScoringConfig:
    """The prompt set's own constants, changed where the user says so."""
    from tai_engine.tagging.scoring import default_scoring

    given = {"which": which, "pooling": pooling, "temperature": temperature, "mix": mix, "normalise": normalise}
    changes = {name: value for name, value in given.items() if value is not None}
    base = default_scoring(prompts, "merged" if has_fine else "coarse")
    return replace(base, **changes)  # type: ignore[arg-type]  # names are checked where the config is made
