import numpy as np
import pyarrow as pa
import pytest

from tai_engine.tagging.arrow_columns import number_column, text_column


@pytest.mark.parametrize("texts", [[], [""], ["dog"], ["", "Straßenbahn", "犬", 'a,"b"\n', ""]])
def test_texts(texts):
    column = text_column(texts)
    column.validate(full=True)
    assert column.type == pa.string()
    assert column.to_pylist() == texts


@pytest.mark.parametrize("count", [0, 1, 8, 9, 17])
def test_numbers_and_missing_ones(count):
    numbers = np.arange(count, dtype=np.float64)[::-1] / 2  # not in one piece
    missing = np.arange(count) % 3 == 1
    column = number_column(numbers, pa.float32(), missing)
    column.validate(full=True)
    assert column.type == pa.float32()
    assert column.to_pylist() == [None if gone else float(x) for x, gone in zip(numbers, missing, strict=True)]
    assert column.null_count == missing.sum()
    assert number_column(np.arange(count), pa.int32()).to_pylist() == list(range(count))
