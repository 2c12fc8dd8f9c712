"""Prompts learned from sentences alone; reads stores, never pictures."""

from tai_engine.tuning.checkpoint import EpochMetrics
from tai_engine.tuning.config import TuningConfig
from tai_engine.tuning.constants import ConstantsGrid, FoundConstants, Trial, find_constants
from tai_engine.tuning.loop import DivergedError, StepProgress, Tuner
from tai_engine.tuning.tune import TextModel, TuningResult, TuningTask, check_store, tune, tune_task

__all__ = [
    "ConstantsGrid",
    "DivergedError",
    "EpochMetrics",
    "FoundConstants",
    "StepProgress",
    "TextModel",
    "Trial",
    "Tuner",
    "TuningConfig",
    "TuningResult",
    "TuningTask",
    "check_store",
    "find_constants",
    "tune",
    "tune_task",
]
