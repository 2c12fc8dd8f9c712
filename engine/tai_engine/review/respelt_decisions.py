"""Decisions in the spelling of the tags that they are for: systems compose accents, or do not."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from tai_engine.review.decisions import PictureDecision
from tai_engine.sources.ids import spelt_as_known


def respelt(
    decisions: Mapping[str, PictureDecision], is_known: Callable[[str], bool], class_names: Iterable[str]
) -> dict[str, PictureDecision]:
    """The same decisions, by the ids and with the tags that are known, where only their accents are composed otherwise.

    Args:
        decisions: by picture.
        is_known: whether there is a picture of exactly this id.
        class_names: the tags that there are.
    """
    classes = list(class_names)
    own = {unicodedata.normalize("NFC", name): name for name in classes}
    known = frozenset(classes)

    def with_known_tags(decision: PictureDecision) -> PictureDecision:
        spelt = {
            tag: tag if tag.isascii() or tag in known else own.get(unicodedata.normalize("NFC", tag), tag)
            for tag in decision.verdicts
        }
        if len(set(spelt.values())) < len(spelt) or all(tag == name for tag, name in spelt.items()):
            return decision
        return replace(decision, verdicts={spelt[tag]: verdict for tag, verdict in decision.verdicts.items()})

    ids = spelt_as_known(decisions, is_known)
    return {item_id: with_known_tags(decision) for item_id, decision in zip(ids, decisions.values(), strict=True)}
