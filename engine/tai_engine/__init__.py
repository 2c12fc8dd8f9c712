"""Tag large picture collections with your own words.

The stable Python API; everything else may change between minor versions::

    encoder = tai_engine.load_encoder("RN50", "openai")
    prompts = tai_engine.zero_shot_prompts(encoder, tai_engine.load_vocabulary("coco80"))
    batch = encoder.encode_images(pictures, ids)
    scores = tai_engine.score(batch, prompts)

Names are imported when they are first used: open_clip alone takes seconds, which ``tai --help`` should not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tai_engine.encoders import Encoder, load_encoder
    from tai_engine.errors import UserError
    from tai_engine.features import FeatureBatch
    from tai_engine.prompts.prompt_set import PromptSet, zero_shot_prompts
    from tai_engine.store import FeatureStore
    from tai_engine.tagging.batch_loop import tag_store
    from tai_engine.tagging.normalisation import normalise
    from tai_engine.tagging.score_batch import ScoreBatch, SparseScoreBatch
    from tai_engine.tagging.scoring import ScoringConfig, score
    from tai_engine.tagging.tag_job import tag_batch
    from tai_engine.tagging.tag_selection import Selection
    from tai_engine.vocabulary import Vocabulary, load_vocabulary

    __version__: str

__all__ = [
    "Encoder",
    "FeatureBatch",
    "FeatureStore",
    "PromptSet",
    "ScoreBatch",
    "ScoringConfig",
    "Selection",
    "SparseScoreBatch",
    "UserError",
    "Vocabulary",
    "load_encoder",
    "load_vocabulary",
    "normalise",
    "score",
    "tag_batch",
    "tag_store",
    "zero_shot_prompts",
]

_HOMES = {
    "encoders": ("Encoder", "load_encoder"),
    "errors": ("UserError",),
    "features": ("FeatureBatch",),
    "prompts.prompt_set": ("PromptSet", "zero_shot_prompts"),
    "tagging.normalisation": ("normalise",),
    "tagging.scoring": ("ScoringConfig", "score"),
    "tagging.score_batch": ("ScoreBatch", "SparseScoreBatch"),
    "tagging.tag_selection": ("Selection",),
    "tagging.tag_job": ("tag_batch",),
    "store": ("FeatureStore",),
    "tagging.batch_loop": ("tag_store",),
    "vocabulary": ("Vocabulary", "load_vocabulary"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOME_OF:
        raise AttributeError(f"module 'tai_engine' has no attribute {name!r}")
    return getattr(import_module(f"tai_engine.{_HOME_OF[name]}"), name)


def _version() -> str:
    # A tenth of a second, which every process that decodes would spend.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("tai-engine")
    except PackageNotFoundError:  # a checkout on the path, not installed
        return "unknown"
