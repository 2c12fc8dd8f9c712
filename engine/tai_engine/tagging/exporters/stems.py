"""Names of pictures without their endings, as some formats want them."""

from __future__ import annotations

from pathlib import PurePosixPath

from tai_engine.errors import UserError


class Stems:
    """Takes endings off, and refuses what would then be one name for two pictures.

    Memory: one entry a picture.

    Args:
        program: whose rule it is, for the message.
    """

    def __init__(self, program: str) -> None:
        self._program = program
        self._ids: dict[str, str] = {}

    def of(self, item_id: str) -> str:
        """The name without its ending.

        Raises:
            UserError: when an earlier picture has the same one.
        """
        path = PurePosixPath(item_id)
        stem = str(path.with_suffix("")) if path.name else item_id
        other = self._ids.setdefault(stem, item_id)
        if other != item_id:
            raise UserError(
                f"{self._program} names pictures without their ending, so that {other!r} and {item_id!r} would be one: "
                "rename one of them, or export to another format."
            )
        return stem
