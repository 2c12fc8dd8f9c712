"""Who takes part in the benchmark of scoring, and the check that each has to pass before it is timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from tai_benchmarks import torch_variants
from tai_benchmarks.machine import is_native
from tai_benchmarks.published import published_scores
from tai_benchmarks.score_problem import SCALE, TEMPERATURE, TOLERANCE, ExactScores, Inputs, ScoreProblem
from tai_kernels.scoring import ops

TOP_K = 5
_EMULATED_SHARE = 64  # a dtype without hardware is 30 to 100 times slower, so it does this share of the items

Remark = Callable[[str], None]


@dataclass(frozen=True)
class Contender:
    """A candidate with what its row says of it.

    Attributes:
        name: as rows spell it.
        row_dtype: of the fine rows that it reads.
        items: how many it does.
        run: scores them; None instead of scores from the bare product.
        native: whether the machine multiplies this dtype in hardware.
    """

    name: str
    row_dtype: str
    items: int
    run: Callable[[], ops.Scores | None]
    native: bool = True

    @property
    def label(self) -> str:
        """Unique within a set."""
        return f"{self.name}/{self.row_dtype}"


@dataclass(frozen=True)
class Fp64Agreement:
    """What the check against fp64 said of a contender; the bare product has nothing to be judged by."""

    relative_error: float | None = None
    top_k_agreement: float | None = None


class WrongResultError(RuntimeError):
    """Our own path disagrees with fp64: there is nothing worth timing."""


def contenders(problem: ScoreProblem, row_dtypes: Sequence[str], quick: bool) -> Iterator[Contender]:
    """Everything that is measured on one problem; the published formulation first, ours last.

    Args:
        problem: what to score.
        row_dtypes: of ours.
        quick: leave out what takes long: compiling, and dtypes that the machine has no hardware for.
    """
    raw, device = problem.raw, problem.device
    step = torch_variants.whole_batch(problem.shape.rows, problem.classes, device)

    def published() -> ops.Scores:
        def score(coarse_ND: torch.Tensor, fine_NLD: torch.Tensor) -> ops.Scores:
            return published_scores(
                coarse_ND,
                fine_NLD,
                raw.class_global,
                raw.class_local,
                temperature=TEMPERATURE,
                scale=SCALE,
                pooling=problem.pooling,
            )

        return torch_variants.in_batches(score, raw.coarse, raw.fine, step)

    yield Contender("published", "fp32", problem.items, published)
    for dtype_name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        native = is_native(dtype, device)
        items = problem.items if native else max(1, problem.items // _EMULATED_SHARE)
        for variant in torch_variants.VARIANTS:
            if variant.compiled and quick:
                continue
            if not native and (quick or variant is not torch_variants.VARIANTS[0]):
                continue  # once is enough to show that it is no rival
            inputs = problem.inputs(dtype_name).first(items)
            score = torch_variants.runner(variant, problem.pooling, TEMPERATURE, SCALE)
            yield Contender(variant.name, dtype_name, items, _call(score, inputs), native)
        if native:
            inputs = problem.inputs(dtype_name)
            yield Contender("gemm", dtype_name, items, _bare(inputs))
    classes = problem.inputs("fp32")  # prompt sets keep their vectors in fp32, whatever the rows are in
    for name in row_dtypes:
        inputs = replace(problem.inputs(name), class_global=classes.class_global, class_local=classes.class_local)
        yield Contender("tai", name, problem.items, tai(inputs, problem.pooling))


def _call(score: Callable[..., ops.Scores], inputs: Inputs) -> Callable[[], ops.Scores]:
    return lambda: score(inputs.coarse, inputs.fine, inputs.class_global, inputs.class_local)


def _bare(inputs: Inputs) -> Callable[[], None]:
    vectors = (inputs.coarse, inputs.fine, inputs.class_global, inputs.class_local)
    return lambda: torch_variants.product_only(*vectors)


def tai(inputs: Inputs, pooling: str) -> Callable[[], ops.Scores]:
    """Our path as the engine calls it: packed rows with offsets."""
    items, rows, _ = inputs.fine.shape
    fine_TD = inputs.fine.flatten(0, 1)
    offsets = torch.arange(items + 1, dtype=torch.int64) * rows
    return lambda: ops.score(
        inputs.coarse,
        fine_TD,
        offsets,
        inputs.class_global,
        inputs.class_local,
        pooling=pooling,
        temperature=TEMPERATURE,
        scale=SCALE,
        fine_scales=inputs.fine_scales,
    )


def check(all_contenders: Iterator[Contender], truth: ExactScores, remark: Remark) -> dict[Contender, Fp64Agreement]:
    """Run each contender once and hold it against fp64; those of torch that fail or are wrong are left out.

    Raises:
        WrongResultError: when ours is wrong.
    """
    judged: dict[Contender, Fp64Agreement] = {}
    for contender in all_contenders:
        try:
            scores = contender.run()
        except Exception as error:
            # torch.compile fails in as many ways as there are machines; without it the others still compare.
            if not contender.name.startswith("torch-compile"):
                raise
            first_line = str(error).strip().partition("\n")[0]
            remark(f"{contender.label} is left out: {type(error).__name__}: {first_line}")
            continue
        if scores is None:
            judged[contender] = Fp64Agreement()
            continue
        error_found = truth.relative_error(scores)
        if error_found > TOLERANCE[contender.row_dtype]:
            message = f"{contender.label} is off by {error_found:.2g} of the largest score, which is wrong"
            if contender.name == "tai":
                raise WrongResultError(message)
            remark(f"{message}: it is left out")
            continue
        judged[contender] = Fp64Agreement(error_found, truth.top_k_agreement(scores, TOP_K))
    return judged
