"""The README's Python example runs, with the tiny model in place of downloaded weights."""

import re
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

import tai_engine
from feature_samples import write_group
from tai_engine.store import FeatureStore, StoredItem, StoreSpec

README = Path(__file__).parent.parent / "README.md"


def test_the_python_example(golden_model: str, tmp_path: Path, monkeypatch):
    example = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)[1]
    assert '"RN50", "openai"' in example
    example = example.replace('"RN50", "openai"', f'"{golden_model}"')
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 30), "red").save("a.jpg")
    encoder = tai_engine.load_encoder(golden_model)
    batch = encoder.encode_images([Image.open("a.jpg")], ids=["a.jpg"])
    spec = StoreSpec(
        "images", encoder.space_key, encoder.recipe_key, encoder.dim, encoder.rows_per_image, has_coarse_clip=True
    )
    write_group(FeatureStore.create("photos.zarr", spec), 0, [StoredItem("a.jpg")], [batch])
    names: dict[str, object] = {}
    exec(example, names)
    assert names["tags"].ids == ("a.jpg",)
    assert len(names["tags"].scores) == 3
    assert pq.read_table("tags.parquet").num_rows == 80
