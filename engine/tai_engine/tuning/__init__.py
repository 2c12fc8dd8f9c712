"""Prompts learned from sentences, or from labelled pictures; reads stores, decodes nothing."""

from tai_engine.tuning.config import NegativeConfig, TuningConfig
from tai_engine.tuning.constants import ConstantsGrid, FoundConstants, Trial, find_constants
from tai_engine.tuning.epoch_metrics import EpochMetrics
from tai_engine.tuning.job import TuningResult, tune
from tai_engine.tuning.loop import DivergedError, StepProgress, Tuner
from tai_engine.tuning.sentence_table import SentenceStore
from tai_engine.tuning.task import TextModel, TuningTask, check_store
from tai_engine.tuning.training_pictures import TrainingPictures, too_few_for

__all__ = [
    "ConstantsGrid",
    "DivergedError",
    "EpochMetrics",
    "FoundConstants",
    "NegativeConfig",
    "SentenceStore",
    "StepProgress",
    "TextModel",
    "TrainingPictures",
    "Trial",
    "Tuner",
    "TuningConfig",
    "TuningResult",
    "TuningTask",
    "check_store",
    "find_constants",
    "too_few_for",
    "tune",
]
