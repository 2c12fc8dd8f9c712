"""The Triton kernels: forward in one pass over the rows, weights of the gradient, and a plain product.

A forward program owns a few consecutive items and a block of classes, and gives all three scores of them. It walks over
the items' rows, which lie one after the other, tile by tile, so that items whose size is not a multiple of a tile share
tiles; the similarities live in registers and each item's pooling is carried along online (Milakov and Gimelshein, arXiv
1805.02867).

Legend: t rows, c classes, k depth; s similarities. Arguments in capitals are compile-time constants.
"""

# Triton reads annotations as its own: plain arguments have none, and a kernel returns nothing.
# ruff: noqa: ANN001, ANN201, SIM108
# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl

_FEWEST_ROWS = tl.constexpr(16)  # that a product can have


@triton.jit
def similarity_tile(
    rows_ptr,
    class_ptr,
    scales_ptr,
    t,
    c,
    row_end,
    classes,
    dim,
    row_stride,
    ROWS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
    EVEN_D: tl.constexpr,
    HAS_SCALES: tl.constexpr,
):
    """Similarities [ROWS, BLOCK_C] in fp32 of rows ``t`` (zero from ``row_end`` on) with classes ``c``."""
    sums = tl.zeros((ROWS, BLOCK_C), dtype=tl.float32)
    k = tl.arange(0, BLOCK_D)
    row_ptrs = rows_ptr + t[:, None] * row_stride + k[None, :]
    class_ptrs = class_ptr + c[None, :] * dim + k[:, None]
    row_mask = t[:, None] < row_end
    class_mask = c[None, :] < classes
    for start in range(0, dim, BLOCK_D):
        if EVEN_D:
            rows = tl.load(row_ptrs, mask=row_mask, other=0)
            columns = tl.load(class_ptrs, mask=class_mask, other=0)
        else:
            rows = tl.load(row_ptrs, mask=row_mask & (start + k[None, :] < dim), other=0)
            columns = tl.load(class_ptrs, mask=class_mask & (start + k[:, None] < dim), other=0)
        # IEEE: the default for fp32 is TF32, which keeps ten bits.
        sums = tl.dot(rows.to(columns.dtype), columns, sums, input_precision="ieee")
        row_ptrs += BLOCK_D
        class_ptrs += BLOCK_D
    if HAS_SCALES:
        sums *= tl.load(scales_ptr + t, mask=t < row_end, other=0)[:, None]
    return sums


@triton.jit
def forward_kernel(
    rows_ptr,
    offsets_ptr,
    class_ptr,
    scales_ptr,
    coarse_rows_ptr,
    global_ptr,
    coarse_ptr,
    fine_ptr,
    merged_ptr,
    state_ptr,
    items,
    classes,
    dim,
    row_stride,
    coarse_stride,
    temperature,
    scale,
    mix,
    MAX_POOLING: tl.constexpr,
    HAS_SCALES: tl.constexpr,
    FUSED: tl.constexpr,
    PARTS: tl.constexpr,
    SAVE: tl.constexpr,
    EVEN_D: tl.constexpr,
    ITEMS: tl.constexpr,
    SLOTS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Pool and merge ``ITEMS`` items; ``SLOTS`` is that number rounded up to a power of two.

    ``FUSED``: the coarse scores are computed here and written with ``PARTS``; otherwise they are read.
    """
    # Neighbouring programs share rows, not classes: the rows then come from the second-level cache.
    class_blocks = tl.cdiv(classes, BLOCK_C)
    first = (tl.program_id(0) // class_blocks) * ITEMS
    c = (tl.program_id(0) % class_blocks) * BLOCK_C + tl.arange(0, BLOCK_C)
    row_start = tl.load(offsets_ptr + first)
    row_end = tl.load(offsets_ptr + tl.minimum(first + ITEMS, items))

    slot = tl.arange(0, SLOTS)[:, None]
    top = tl.full((SLOTS, BLOCK_C), float("-inf"), dtype=tl.float32)
    total = tl.zeros((SLOTS, BLOCK_C), dtype=tl.float32)
    weighted = tl.zeros((SLOTS, BLOCK_C), dtype=tl.float32)
    position = tl.zeros((SLOTS, BLOCK_C), dtype=tl.int32)
    exponent = temperature * 1.4426950408889634  # exp(x) = 2^(x log2 e)

    for row in range(row_start, row_end, ROWS):
        t = row + tl.arange(0, ROWS)
        s = similarity_tile(
            rows_ptr,
            class_ptr,
            scales_ptr,
            t,
            c,
            row_end,
            classes,
            dim,
            row_stride,
            ROWS,
            BLOCK_C,
            BLOCK_D,
            EVEN_D,
            HAS_SCALES,
        )
        for j in range(ITEMS):
            begin = tl.load(offsets_ptr + tl.minimum(first + j, items))
            end = tl.load(offsets_ptr + tl.minimum(first + j + 1, items))
            inside = ((t >= begin) & (t < end))[:, None]
            here = slot == j
            old_top = tl.max(tl.where(here, top, float("-inf")), axis=0)
            tile_top = tl.max(tl.where(inside, s, float("-inf")), axis=0)
            new_top = tl.maximum(old_top, tile_top)
            if MAX_POOLING:
                if SAVE:
                    place = tl.where(inside & (s == tile_top[None, :]), (t - begin).to(tl.int32)[:, None], 2147483647)
                    better = (tile_top > old_top)[None, :]
                    position = tl.where(here & better, tl.min(place, axis=0)[None, :], position)
            else:
                # An item that has had no row yet has a maximum of -inf; any finite number serves in its stead.
                centre = tl.where(new_top == float("-inf"), 0.0, new_top)
                e = tl.where(inside, tl.exp2((s - centre[None, :]) * exponent), 0.0)
                keep = tl.where(old_top == float("-inf"), 0.0, tl.exp2((old_top - centre) * exponent))
                old_total = tl.sum(tl.where(here, total, 0.0), axis=0)
                old_weighted = tl.sum(tl.where(here, weighted, 0.0), axis=0)
                total = tl.where(here, (old_total * keep + tl.sum(e, axis=0))[None, :], total)
                weighted = tl.where(here, (old_weighted * keep + tl.sum(e * s, axis=0))[None, :], weighted)
            top = tl.where(here, new_top[None, :], top)

    item = first + slot
    mask = (item < items) & (slot < ITEMS) & (c[None, :] < classes)
    place = item.to(tl.int64) * classes + c[None, :]
    begin = tl.load(offsets_ptr + item, mask=item < items, other=0)
    end = tl.load(offsets_ptr + item + 1, mask=item < items, other=0)
    empty = begin == end
    if FUSED:
        line = tl.arange(0, _FEWEST_ROWS)
        products = similarity_tile(
            coarse_rows_ptr,
            global_ptr,
            scales_ptr,
            (first + line).to(tl.int64),
            c,
            tl.minimum(first + ITEMS, items),
            classes,
            dim,
            coarse_stride,
            _FEWEST_ROWS,
            BLOCK_C,
            BLOCK_D,
            EVEN_D,
            False,
        )
        coarse = tl.zeros((SLOTS, BLOCK_C), dtype=tl.float32)
        for j in range(ITEMS):
            its = tl.sum(tl.where(line[:, None] == j, products, 0.0), axis=0)
            coarse = tl.where(slot == j, its[None, :] * scale, coarse)
        if PARTS:
            tl.store(coarse_ptr + place, coarse, mask=mask)
    else:
        coarse = tl.load(coarse_ptr + place, mask=mask, other=0.0)
    if MAX_POOLING:
        value = tl.where(empty, 0.0, top)
    else:
        value = weighted / tl.where(empty, 1.0, total)
    fine = tl.where(empty, coarse, value * scale)
    if PARTS:
        tl.store(fine_ptr + place, fine, mask=mask)
    tl.store(merged_ptr + place, fine + (coarse - fine) * mix, mask=mask)
    if SAVE:
        if MAX_POOLING:
            tl.store(state_ptr + place, position, mask=mask)
        else:
            log_sum = tl.where(empty, 0.0, top * temperature) + tl.log(tl.where(empty, 1.0, total))
            tl.store(state_ptr + place, log_sum, mask=mask)


@triton.jit
def weight_kernel(
    rows_ptr,
    offsets_ptr,
    item_ptr,
    class_ptr,
    scales_ptr,
    value_ptr,
    state_ptr,
    grad_ptr,
    weight_ptr,
    first_row,
    row_end,
    classes,
    dim,
    row_stride,
    temperature,
    MAX_POOLING: tl.constexpr,
    HAS_SCALES: tl.constexpr,
    EVEN_D: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Gradient w.r.t. the similarities of rows ``first_row`` to ``row_end``, times the rows' scales: [rows, C]."""
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    t = first_row + r.to(tl.int64)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    mask = (t[:, None] < row_end) & (c[None, :] < classes)
    item = tl.load(item_ptr + t, mask=t < row_end, other=0)
    place = item.to(tl.int64)[:, None] * classes + c[None, :]
    state = tl.load(state_ptr + place, mask=mask, other=0)
    grad = tl.load(grad_ptr + place, mask=mask, other=0.0)
    if MAX_POOLING:
        begin = tl.load(offsets_ptr + item, mask=t < row_end, other=0)
        weight = tl.where((t - begin).to(tl.int32)[:, None] == state, grad, 0.0)
    else:
        s = similarity_tile(
            rows_ptr,
            class_ptr,
            scales_ptr,
            t,
            c,
            row_end,
            classes,
            dim,
            row_stride,
            ROWS,
            BLOCK_C,
            BLOCK_D,
            EVEN_D,
            HAS_SCALES,
        )
        value = tl.load(value_ptr + place, mask=mask, other=0.0)
        weight = grad * tl.exp(temperature * s - state) * (1 + temperature * (s - value))
    if HAS_SCALES:
        weight *= tl.load(scales_ptr + t, mask=t < row_end, other=0)[:, None]
    tl.store(weight_ptr + r.to(tl.int64)[:, None] * classes + c[None, :], weight, mask=mask)


@triton.jit
def matmul_kernel(
    a_ptr,
    b_ptr,
    out_ptr,
    m_size,
    n_size,
    k_size,
    a_stride_m,
    a_stride_k,
    b_stride_k,
    b_stride_n,
    scale,
    ADD: tl.constexpr,
    WIDEN: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """out [M, N] fp32 (+)= scale · A [M, K] · B [K, N]; ``WIDEN`` multiplies in IEEE fp32 whatever the operands are."""
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for start in range(0, k_size, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        a_place = m.to(tl.int64)[:, None] * a_stride_m + k.to(tl.int64)[None, :] * a_stride_k
        b_place = k.to(tl.int64)[:, None] * b_stride_k + n.to(tl.int64)[None, :] * b_stride_n
        a = tl.load(a_ptr + a_place, mask=(m[:, None] < m_size) & (k[None, :] < k_size), other=0)
        b = tl.load(b_ptr + b_place, mask=(k[:, None] < k_size) & (n[None, :] < n_size), other=0)
        if WIDEN:
            a = a.to(tl.float32)
            b = b.to(tl.float32)
        sums = tl.dot(a, b, sums, input_precision="ieee")
    place = m.to(tl.int64)[:, None] * n_size + n[None, :]
    mask = (m[:, None] < m_size) & (n[None, :] < n_size)
    sums *= scale
    if ADD:
        sums += tl.load(out_ptr + place, mask=mask, other=0.0)
    tl.store(out_ptr + place, sums, mask=mask)
