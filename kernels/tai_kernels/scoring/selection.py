"""Which of an item's scores are kept: the best k, or those above a threshold per class. Equal scores in class order.

Shape legend: N items, C classes, K kept per item, M kept altogether.
"""

import torch
from torch import Tensor


def top_k(scores_NC: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``min(k, C)`` best scores of each item, best first, with their int64 class indices: [N, K] each.

    ``torch.topk`` leaves open which of several equal scores it returns; here the first classes win.
    """
    kept = min(k, scores_NC.shape[1])
    if kept == 0 or scores_NC.shape[0] == 0:
        empty = scores_NC.new_empty(scores_NC.shape[0], kept)
        return empty, empty.to(torch.int64)
    _, classes_NK = scores_NC.topk(kept, dim=1, sorted=False)
    lowest_N1 = scores_NC.gather(1, classes_NK).amin(dim=1, keepdim=True)
    # Only where more scores than K reach the lowest kept one is torch's choice open.
    open_N = ((scores_NC >= lowest_N1).sum(dim=1) > kept).nonzero()[:, 0]
    if open_N.numel():
        classes_NK[open_N] = scores_NC[open_N].sort(dim=1, descending=True, stable=True).indices[:, :kept]
    classes_NK = classes_NK.sort(dim=1).values
    best_NK, order_NK = scores_NC.gather(1, classes_NK).sort(dim=1, descending=True, stable=True)
    return best_NK, classes_NK.gather(1, order_NK)


def above(scores_NC: Tensor, thresholds_C: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores that reach their class's threshold, best first per item.

    Returns:
        scores [M], int64 class indices [M], int64 counts per item [N].
    """
    items_M, classes_M = (scores_NC >= thresholds_C).nonzero(as_tuple=True)
    kept_M = scores_NC[items_M, classes_M]
    # Two stable sorts: by score, then by item, which nonzero() had in order of class.
    by_score_M = kept_M.argsort(descending=True, stable=True)
    order_M = by_score_M[items_M[by_score_M].argsort(stable=True)]
    counts_N = torch.bincount(items_M, minlength=scores_NC.shape[0])
    return kept_M[order_M], classes_M[order_M], counts_N
