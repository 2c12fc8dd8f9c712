"""What can be wrong with a store that is being read: damage, and what cannot be read just now, which is none.

Only what is missing, of a wrong length or with a wrong checksum is damage, and may be repaired.
"""

from __future__ import annotations

from tai_engine.errors import UserError
from tai_engine.store.places.abstract_files import StoreFiles

_ADVICE = "run `tai verify {store} --repair`, then run the same `tai cache` command again to redo its items"


class DamagedGroupError(UserError):
    """A committed group has lost some of what was written.

    Attributes:
        what: what is wrong with it.
    """

    def __init__(self, store: StoreFiles, group: int, what: str) -> None:
        super().__init__(f"Group {group} of the store {store} is damaged ({what}); {_ADVICE.format(store=store)}.")
        self.what = what


class DamagedRecordError(UserError):
    """The record of a group is not one.

    Attributes:
        what: what is wrong with it.
    """

    def __init__(self, store: StoreFiles, name: str, what: str) -> None:
        super().__init__(f"The commit record {store}/{name} is damaged ({what}); {_ADVICE.format(store=store)}.")
        self.what = what


class DamagedDescriptionError(UserError):
    """A file that says how to read the others is missing or makes no sense.

    Attributes:
        file: its name.
        what: what is wrong with it.
    """

    def __init__(self, message: str, file: str, what: str) -> None:
        super().__init__(message)
        self.file = file
        self.what = what


def unreadable(store: StoreFiles, name: str, error: OSError) -> UserError:
    """The error for a file that cannot be read just now; whether it is sound is not known then."""
    return UserError(
        f"{store}/{name} cannot be read just now ({error.strerror or error}), which does not say that it is damaged; "
        "nothing was changed: check the place, its permissions and the connection, then run the same command again."
    )
