import asyncio
import io
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from review_samples import write_pictures, write_tags
from tai_engine.disk_cache import DiskCache
from tai_engine.review.collection import Collection, NotShownError
from tai_engine.review.small_jpeg import SmallJpeg, file_in, fitting
from tai_engine.review.thumbnails import LARGE_SIDE, THUMBNAIL_SIDE, Thumbnails


def finished(coroutine):
    """What a coroutine gives, from a thread of its own: a browser of other tests may have a loop in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


@pytest.mark.parametrize(
    ("size", "side", "fits"),
    [
        ((400, 200), 100, (100, 50)),
        ((200, 400), 100, (50, 100)),
        ((30, 20), 100, (30, 20)),
        ((9000, 10), 100, (100, 1)),
    ],
)
def test_pictures_are_scaled_down_to_fit(size, side, fits):
    assert fitting(size, side) == fits
    image = Image.linear_gradient("L").resize(size).convert("RGB")
    data = file_in(SmallJpeg(side)(image, size, None))
    with Image.open(io.BytesIO(data)) as found:
        assert (found.format, found.size) == ("JPEG", fits)
        wanted = np.asarray(image.resize(fits, Image.Resampling.BICUBIC), int)
        assert np.abs(np.asarray(found, int) - wanted).mean() < 2


def test_noise_finds_room_too():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    with Image.open(io.BytesIO(file_in(SmallJpeg(64)(noise, noise.size, None)))) as found:
        assert found.size == (64, 64)


@pytest.fixture
def collection(tmp_path):
    folder = write_pictures(tmp_path / "p", ["a.jpg", "big.jpg"], (2000, 500))
    (folder / "broken.jpg").write_bytes(b"not a picture")
    turned = Image.new("RGB", (40, 20), "red")
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "turned.jpg", exif=exif)
    names = ["a.jpg", "big.jpg", "broken.jpg", "turned.jpg"]
    return Collection.open(write_tags(tmp_path / "t.parquet", [(name, "dog", 1.0) for name in names]), folder)


def size_of(data):
    with Image.open(io.BytesIO(data)) as image:
        return image.size


def test_thumbnails_and_large_views_are_made_once(collection, tmp_path):
    cache = DiskCache(tmp_path / "cache", 10_000_000)

    async def look():
        first = await asyncio.gather(*(thumbnails.thumbnail(n) for n in (0, 0, 1, 3)))
        return first, await thumbnails.large_view(1), await thumbnails.large_view(1)

    with closing(Thumbnails(collection, cache, workers=1)) as thumbnails:
        made, large, again = finished(look())
    assert [size_of(data) for data in made] == [
        (THUMBNAIL_SIDE, 96),
        (THUMBNAIL_SIDE, 96),
        (THUMBNAIL_SIDE, 96),
        (20, 40),
    ]
    assert made[0] == made[1] != made[2]
    assert size_of(large) == (LARGE_SIDE, 400)
    assert again is large
    (tmp_path / "p" / "a.jpg").rename(tmp_path / "elsewhere.jpg")
    with closing(Thumbnails(collection, cache, workers=1)) as thumbnails:
        assert finished(thumbnails.thumbnail(0)) == made[0]  # from the cache
        with pytest.raises(NotShownError, match="missing"):
            finished(thumbnails.large_view(0))


def test_a_picture_that_cannot_be_shown_says_why_and_others_go_on(collection, tmp_path):
    async def look():
        return await asyncio.gather(*(thumbnails.thumbnail(n) for n in (2, 0)), return_exceptions=True)

    with closing(Thumbnails(collection, DiskCache(tmp_path / "cache", 10_000_000), workers=1)) as thumbnails:
        broken, whole = finished(look())
        assert isinstance(broken, NotShownError)
        assert str(broken).startswith("unknown-format: ")
        assert size_of(whole) == (THUMBNAIL_SIDE, 96)


def test_what_is_seen_first_is_made_before_anybody_asks(collection, tmp_path):
    cache = DiskCache(tmp_path / "cache", 10_000_000)
    with closing(Thumbnails(collection, cache, workers=1)) as thumbnails:
        thumbnails.make_first()
        with pytest.raises(NotShownError):  # those before it have been made then
            finished(thumbnails.thumbnail(2))
        while thumbnails._under_way:
            time.sleep(0.01)
    for path in (tmp_path / "p").iterdir():
        path.unlink()
    with closing(Thumbnails(collection, cache, workers=1)) as thumbnails:
        assert [size_of(finished(thumbnails.thumbnail(n)))[0] for n in (0, 1, 3)] == [384, 384, 20]
        thumbnails.make_first()
        assert set(thumbnails._under_way) <= {2}


def test_a_changed_picture_gets_another_thumbnail(tmp_path):
    folder = write_pictures(tmp_path / "p", ["a.jpg"])
    tags = write_tags(tmp_path / "t.parquet", [("a.jpg", "dog", 1.0)])
    cache = DiskCache(tmp_path / "cache", 10_000_000)
    sizes = []
    for size in ((60, 40), (30, 90)):
        write_pictures(folder, ["a.jpg"], size)
        with closing(Thumbnails(Collection.open(tags, folder), cache, workers=1)) as thumbnails:
            sizes.append(size_of(finished(thumbnails.thumbnail(0))))
    assert sizes == [(60, 40), (30, 90)]


def test_the_last_asked_for_comes_first(collection):
    from tai_engine.review.on_demand import OnDemandDecoder

    decoder = OnDemandDecoder(collection.read_bytes, 64, 1)
    order = []
    # While the first is being decoded, in a process that has to start, the others wait.
    requests = [decoder.request(collection.item(number)) for number in (0, 1, 3, 0, 1, 3)]
    for number, request in enumerate(requests):
        request.add_done_callback(lambda _, number=number: order.append(number))
    requests[2].cancel()
    for number, request in enumerate(requests):
        if number != 2:
            assert request.result(timeout=60)
    decoder.close()
    assert order.index(5) < order.index(1)
    assert decoder.request(collection.item(0)).cancelled()
