"""The items that were scored and got no tag: a file of tags lists them, since its rows cannot tell.

With a least score (or too few words) some items have no row. Whoever counts with the tags, as `tai evaluate`, has to
know these items too; rows without a tag would be taken for tags by other readers. So the ids stand where those do not
look:

- In Parquet between the first four bytes and the first row group, as a zlib stream of JSON strings, one a line, each
  ended by a line feed. Readers go by the offsets in the footer and never come by. The key-value metadata
  ``tai_engine.untagged`` says where: ``{"offset", "bytes", "items", "sha256"}``, the digest of the compressed bytes.
- In the file beside JSON Lines, under ``"untagged"``, as an array of ids.

Memory: a block of bytes; the ids themselves where they are read.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, Any

from tai_engine.json_documents import parse_json

METADATA_KEY = "tai_engine.untagged"
MAX_ID_BYTES = 2**16
_BLOCK_BYTES = 2**18


def write_listing(sink: Any, ids: Iterable[str]) -> str | None:
    """Write ids to a file that is open for writing, from where it stands on.

    Args:
        sink: with ``tell`` and ``write``.
        ids: of the items, in order.

    Returns:
        What the metadata says of them; None, and nothing is written, if there are none.
    """
    squeezer, digest = zlib.compressobj(6), hashlib.sha256()
    offset, items = sink.tell(), 0

    def put(data: bytes) -> None:
        digest.update(data)
        sink.write(data)

    for item_id in ids:
        items += 1
        put(squeezer.compress(json.dumps(item_id).encode() + b"\n"))
    if not items:
        return None
    put(squeezer.flush())
    place = {"offset": offset, "bytes": sink.tell() - offset, "items": items, "sha256": digest.hexdigest()}
    return json.dumps(place)


def read_listing(file: IO[bytes], place: str) -> Iterator[str]:
    """The ids that `write_listing` wrote.

    Args:
        file: open for reading.
        place: what the metadata says of them.

    Raises:
        ValueError: if they are not there as the metadata says, as when another program wrote the file anew.
    """
    said = parse_json(place)
    numbers: list[Any] = [said.get(key) for key in ("offset", "bytes", "items")] if isinstance(said, dict) else []
    if not numbers or not all(type(number) is int and 0 <= number < 2**62 for number in numbers):
        raise ValueError("what it says of the items without a tag makes no sense")
    offset, left, items = numbers
    digest, unpacker = hashlib.sha256(), zlib.decompressobj()
    file.seek(offset)
    rest, found = b"", 0
    while left > 0 and (data := file.read(min(left, _BLOCK_BYTES))):
        left -= len(data)
        digest.update(data)
        while data:
            try:
                rest += unpacker.decompress(data, _BLOCK_BYTES)
            except zlib.error as error:
                raise ValueError(f"the list of items without a tag is damaged ({error})") from error
            data = unpacker.unconsumed_tail
            *lines, rest = rest.split(b"\n")
            found += len(lines)
            if len(rest) > MAX_ID_BYTES or found > items:
                raise ValueError("the list of items without a tag is not what the metadata says")
            yield from (str(parse_json(line)) for line in lines)
    if rest or found != items or digest.hexdigest() != said["sha256"]:
        raise ValueError("the list of items without a tag is not what the metadata says")
