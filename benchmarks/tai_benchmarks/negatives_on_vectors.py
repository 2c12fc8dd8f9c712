"""What negatives do to class vectors of a real CLIP, where there is nothing but vectors.

    python -m tai_benchmarks.negatives_on_vectors FILE.npz

FILE holds vectors of sentences, photographs and names (CLIP ViT-B/32's of 500, 489 and 80). Without a text tower the
class vectors themselves learn, from the names' on, by the ranking loss over coarse scores, and are judged by the
photographs, standardised. Prints Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tai_benchmarks.vectors_only import VectorsOnly
from tai_engine.evaluation.bootstrap import Interval, compare
from tai_engine.prompts.losses import ranking_loss
from tai_engine.tagging.normalisation import normalise
from tai_engine.tuning import NegativeConfig
from tai_engine.tuning.config import STRATEGIES
from tai_engine.tuning.negatives.holders import Holders
from tai_engine.tuning.negatives.strategies import make_strategy, mix_into_batch

STEPS, RATE, BATCH, SCALE = 200, 0.02, 128, 4.0


def standardised(data: VectorsOnly, classes_CD: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """[N, C] scores of the pictures."""
    return normalise(SCALE * data.pictures @ classes_CD.T, "standard").numpy()


def learned(data: VectorsOnly, strategy: str, seed: int) -> Tensor:
    """[C, D] class vectors after `STEPS` steps of SGD on batches of sentences."""
    generator = torch.Generator().manual_seed(seed)
    classes_CD = data.names.clone().requires_grad_()
    optimizer = torch.optim.SGD([classes_CD], lr=RATE, momentum=0.9)
    mined = None
    for step in range(STEPS):
        unit_CD = normalize(classes_CD, dim=1)
        if strategy != "none" and step % (STEPS // 10) == 0:
            holders = Holders.from_dense(data.labels)
            config = NegativeConfig(strategy=strategy, seed=seed)
            found = make_strategy(config, data.sentences, holders, device="cpu")
            mined = found.mine(unit_CD.detach(), step)
        batch = torch.randperm(len(data.sentences), generator=generator)[:BATCH]
        if mined is not None:
            batch = mix_into_batch(batch, mined, 0.25, generator)
        loss = ranking_loss(SCALE * data.sentences[batch] @ unit_CD.T, data.labels[batch])
        optimizer.zero_grad()
        (loss / 80).backward()
        optimizer.step()
    return normalize(classes_CD.detach(), dim=1)


def vectors_table(data: VectorsOnly, seeds: tuple[int, ...] = (1, 2, 3)) -> Iterator[str]:
    """Lines of Markdown: class vectors learned with each strategy, against the names' and against none."""
    yield "| negatives | seed | mAP % | against the names | against none |"
    yield "|---|---|---|---|---|"
    names = standardised(data, data.names)
    plain = {seed: standardised(data, learned(data, "none", seed)) for seed in seeds}
    for strategy in STRATEGIES:
        for seed in seeds:
            found = plain[seed] if strategy == "none" else standardised(data, learned(data, strategy, seed))
            first, second = compare(names, found, data.truth), compare(plain[seed], found, data.truth)
            gains = " | ".join(_points(one.difference) for one in (first, second))
            yield f"| {strategy} | {seed} | {100 * first.second.value:.1f} | {gains} |"


def _points(one: Interval) -> str:
    return f"{100 * one.value:+.1f} [{100 * one.low:.1f}, {100 * one.high:.1f}]"


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tai_benchmarks.negatives_on_vectors",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("vectors", type=Path, help="of a real CLIP")
    for line in vectors_table(VectorsOnly.read(parser.parse_args(arguments).vectors)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
