"""Where the bytes of shards come from: local files, or a store named by URL and a bounded cache."""

from lightning_rad.storage.folder import Folder, open_folder
from lightning_rad.storage.settings import Remote, StorageError

__all__ = ["Folder", "Remote", "StorageError", "open_folder"]
