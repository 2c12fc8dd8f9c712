"""Tag large picture collections with your own words.

The stable Python API; everything else may change between minor versions::

    encoder = tai_engine.load_encoder("RN50", "openai")
    prompts = tai_engine.zero_shot_prompts(encoder, tai_engine.load_vocabulary("coco80"))
    batch = encoder.encode_images(pictures, ids)
    scores = tai_engine.score(batch, prompts)
"""

from importlib.metadata import version

from tai_engine.encoders import Encoder, load_encoder
from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch, ScoreBatch, SparseScoreBatch
from tai_engine.prompts import PromptSet, zero_shot_prompts
from tai_engine.scoring import ScoringConfig, score
from tai_engine.store import FeatureStore
from tai_engine.tagging import Selection, tag_batch, tag_store
from tai_engine.vocabulary import Vocabulary, load_vocabulary

__version__ = version("tai-engine")

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
    "score",
    "tag_batch",
    "tag_store",
    "zero_shot_prompts",
]
