"""The table of tuning, on very little of everything."""

import functools
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tai_benchmarks import tuning_table
from tai_benchmarks.tuning_data import encode_scenes, scene_styles
from tai_benchmarks.tuning_search import Judge
from tai_benchmarks.tuning_table import ZERO_SHOT, TableConfig, rows_of, table
from tai_engine.demo.embedded_clip import load_embedded_clip
from tai_engine.demo.recipe import own_names_recipe, tuning_recipe
from tai_engine.demo.sprites import embedded_sprite_sheet, write_sprite_sheet
from tai_engine.demo.tuned import cache_demo_sentences, sentences_path
from tai_engine.encoders import Encoder
from tai_engine.errors import UserError
from tai_engine.prompts.learner import ClassVectors
from tai_engine.prompts.prompt_set import zero_shot_prompts
from tai_engine.store import FeatureStore
from tai_engine.tagging.scoring import ScoringConfig, score
from tai_engine.tuning import TuningTask
from tai_engine.tuning.held_out import evaluate
from tai_engine.vocabulary import load_vocabulary


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_embedded_clip(device="cpu")


def found(coarse: float, fine: float, merged: float) -> dict[str, float]:
    return {"coarse": coarse, "fine": fine, "merged": merged}


def test_rows_and_table_by_hand() -> None:
    figures = {ZERO_SHOT: [found(50, 60, 64)], "hard": [found(54, 60, 66), found(56, 60, 62), found(55, 60, 64)]}
    rows = list(rows_of("scenes", 63, figures, {"items": 2000}))
    assert [(row.case, row.candidate, row.baseline) for row in rows] == [
        ("scenes/coarse", "zero-shot CLIP", "zero-shot CLIP"),
        ("scenes/fine", "CLIP-DPT", "CLIP-DPT"),
        ("scenes/merged", "CLIP-DPT", "CLIP-DPT"),
        ("scenes/coarse", "TaI/hard", "zero-shot CLIP"),
        ("scenes/fine", "TaI-DPT/hard", "CLIP-DPT"),
        ("scenes/merged", "TaI-DPT/hard", "CLIP-DPT"),
    ]
    coarse, merged = rows[3], rows[5]
    assert (coarse.value, coarse.ratio, coarse.extra["deviation"]) == (55, pytest.approx(1.1), 1)
    assert (merged.value, merged.extra["deviation"], merged.extra["values"]) == (64, 2, "66.00 62.00 64.00")
    assert coarse.p20 == pytest.approx(54.4)
    assert rows[0].extra["deviation"] is None
    assert table(rows) == (
        "| 2000 scenes, 63 classes | negatives | coarse | fine | merged |\n"
        "|---|---|---|---|---|\n"
        "| zero-shot CLIP | - | 50.0 |  |  |\n"
        "| CLIP-DPT | - |  | 60.0 | 64.0 |\n"
        "| TaI | hard | 55.0 ± 1.0 |  |  |\n"
        "| TaI-DPT | hard |  | 60.0 ± 0.0 | 64.0 ± 2.0 |"
    )


def test_one_command_from_scenes_to_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], encoder: Encoder
) -> None:
    small = {"epochs": 1, "batch_size": 64}
    configured = functools.partial(
        TableConfig, recipe=replace(tuning_recipe(), **small), own_names_recipe=replace(own_names_recipe(), **small)
    )
    monkeypatch.setattr(tuning_table, "TableConfig", configured)
    monkeypatch.setattr(tuning_table, "load_embedded_clip", lambda **_: encoder)
    given = ["--scenes", "12", "--sentences", "150", "--seeds", "1", "2", "--negatives", "none", "hard"]
    given += ["--work", str(tmp_path / "work"), "--results", str(tmp_path / "results")]
    assert tuning_table.main(given) == 0
    printed = capsys.readouterr().out
    assert re.findall(r"^\| (\d+ [\w, -]+), \d+ classes", printed, re.MULTILINE) == [
        "12 scenes in the unseen style",
        "11 held-out sentences",
        "12 scenes in the unseen style, class-specific contexts",
        "11 held-out sentences, class-specific contexts",
        "12 scenes in the unseen style, names unknown to the model",
        "11 held-out sentences, names unknown to the model",
    ]
    counts = {"| TaI | before tuning |": 6, "| TaI-DPT | none |": 6, "| TaI-DPT | hard |": 2}
    assert {line: printed.count(line) for line in counts} == counts
    (file,) = (tmp_path / "results").glob("tuning-table-*.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(rows) == 2 * 3 * (2 + 2) + 2 * 2 * 3 * (2 + 1)
    assert len({row["case"] + row["candidate"] for row in rows}) == len(rows)
    tuned = next(row for row in rows if row["case"].endswith("style/merged") and row["candidate"] == "TaI-DPT/hard")
    assert len(tuned["values"].split()) == 2
    assert 20 < tuned["p20"] <= tuned["value"] <= tuned["p80"] <= 100
    # A second call finds everything in the work folder and prints the same.
    monkeypatch.setattr("tai_engine.tuning.Tuner._train_on", None)
    monkeypatch.setattr(Encoder, "encode_pixels", None)
    monkeypatch.setattr(Encoder, "encode_sentences", None)
    assert tuning_table.main(given) == 0
    assert capsys.readouterr().out == printed


def test_scenes_are_scored_against_their_own_truth(tmp_path: Path, encoder: Encoder) -> None:
    vocabulary = load_vocabulary("coco80")
    scenes = encode_scenes(tmp_path, "scenes", [embedded_sprite_sheet()], 9, encoder, vocabulary)
    prompts = zero_shot_prompts(encoder, vocabulary)
    (batch,) = scenes.store.iter_batches()
    scoring = ScoringConfig("coarse", scale=prompts.logit_scale, clip_coarse=True, normalise="standard")
    truth_NC = scenes.truth.labels[[scenes.truth.ids.index(name) for name in batch.ids]] == 1
    scores_NC = score(batch, prompts, scoring).scores.numpy()
    values = []
    for c in np.flatnonzero(truth_NC.any(axis=0)):
        ranked = truth_NC[np.argsort(-scores_NC[:, c], kind="stable"), c]
        values.append((np.cumsum(ranked) / np.arange(1, 10))[ranked].mean())
    assert scenes.classes == len(values)
    assert scenes.precisions(prompts)["coarse"] == pytest.approx(100 * np.mean(values), abs=1e-4)


def test_known_styles_need_their_sheets(tmp_path: Path) -> None:
    assert [name for name, _ in scene_styles(None)] == ["scenes in the unseen style"]
    sheet = embedded_sprite_sheet()
    write_sprite_sheet(replace(sheet, sprites=sheet.sprites[:2]), tmp_path / "other.json", cell=32)
    with pytest.raises(UserError, match="holds no sheet of the known styles"):
        list(scene_styles(tmp_path))
    write_sprite_sheet(replace(sheet, style="noto", sprites=sheet.sprites[:2]), tmp_path / "noto.json", cell=32)
    names = [(name, [one.style for one in sheets]) for name, sheets in scene_styles(tmp_path)]
    assert names == [("scenes in the unseen style", [sheet.style]), ("scenes in known styles", ["noto"])]


def test_mistakes_are_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert tuning_table.main(["--negatives", "hardest"]) == 2
    assert "did you mean 'hard'" in capsys.readouterr().err
    with pytest.raises(UserError, match="at least one scene"):
        TableConfig(tmp_path, scenes=0)


def test_disturbed_sentences_are_a_harder_test(tmp_path: Path, encoder: Encoder) -> None:
    vocabulary, recipe = load_vocabulary("coco80"), replace(tuning_recipe(), held_out=0.5)
    cache_demo_sentences(tmp_path, 60, encoder, vocabulary)
    task = TuningTask.prepare(FeatureStore.open(sentences_path(tmp_path)), encoder, vocabulary, recipe)
    prompts = zero_shot_prompts(encoder, vocabulary)
    vectors = ClassVectors(prompts.global_vectors, prompts.local_vectors)
    judged = Judge(task)(vectors, recipe)
    plain = evaluate(task.store, task.split.held_out, vectors, recipe)
    assert judged.clean == pytest.approx([100 * one.mean for one in (plain.coarse, plain.fine, plain.merged)])
    assert all(noisy < clean for noisy, clean in zip(judged.noisy, judged.clean, strict=True))
