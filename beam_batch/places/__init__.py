"""Places that all workers of a run can see: folders, and object stores."""

from beam_batch.places.base import Listed, Place
from beam_batch.places.folder import Folder, sync_folder, write_atomically
from beam_batch.places.remote import STORES, scheme_of

__all__ = [
    "STORES", "Folder", "Listed", "Place", "place_of", "scheme_of", "sync_folder",
    "write_atomically",
]  # fmt: skip


def place_of(uri: str) -> Place:
    """Return the place that a path or a URI names.

    Raises:
        OptionsError: it is a URI of no object store, or what it needs is not installed.
    """
    if not scheme_of(uri):
        return Folder(uri)
    from beam_batch.places.store import Store

    return Store(uri)
