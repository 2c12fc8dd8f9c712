"""Sentences with a place for a class name."""

from __future__ import annotations

DEFAULT_TEMPLATE = "a photo of a {}."


def imagenet_templates() -> tuple[str, ...]:
    """The 80 templates that CLIP's authors wrote for ImageNet, as open_clip has them, ``{}`` for the name."""
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES  # slow to import, and seldom wanted

    return tuple(fill("{}") for fill in OPENAI_IMAGENET_TEMPLATES)
