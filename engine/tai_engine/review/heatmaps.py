"""Heatmaps for the page: which parts of a picture are like a tag, from the store of features."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from tai_engine.errors import UserError
from tai_engine.explain.heatmap import grid_box, similarity_grid
from tai_engine.features import FeatureBatch
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.spaces import require_same_space
from tai_engine.store import FeatureStore

_ITEMS_KEPT = 32
_DIGITS = 4


class Heatmaps:
    """Grids of similarities of pictures with tags; safe with threads.

    Memory: what `FeatureStore.read_ids` says, and the features of the last 32 pictures.

    Attributes:
        tags: those that there are heatmaps of.
    """

    def __init__(self, store: FeatureStore, prompts: PromptSet) -> None:
        """Args: a store of pictures with patch features, and prompts of the same space.

        Raises:
            UserError: if they do not fit, or there are no patch features.
        """
        require_same_space(store.spec, prompts, f"the store '{store.path}'", "the prompt set")
        if not store.spec.has_fine:
            raise UserError(
                f"The store '{store.path}' has no patch features, which heatmaps are made of: cache the pictures "
                "without --coarse-only."
            )
        self._store, self._prompts = store, prompts
        self.tags = list(prompts.class_names)
        self._items: OrderedDict[str, FeatureBatch] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, item_id: str, tag: str, size: tuple[int, int]) -> dict[str, Any]:
        """The grid of a picture and a tag, row by row, and where it lies on the picture (see `grid_box`).

        Args:
            item_id: the picture.
            tag: one of ``tags``.
            size: width and height of the picture, at any scale.

        Raises:
            UserError: if the store has no features of the picture, or the tag is unknown.
        """
        with self._lock:
            item = self._items.get(item_id)
            if item is None:
                item = self._items[item_id] = self._store.read_ids([item_id])
            self._items.move_to_end(item_id)
            while len(self._items) > _ITEMS_KEPT:
                self._items.popitem(last=False)
        (grid,) = similarity_grid(item, self._prompts, [tag])
        box = grid_box(size, self._store.spec.recipe)
        return {"grid": [[round(value, _DIGITS) for value in row] for row in grid.tolist()], "box": box}
