"""The only door of fsspec: ranges of objects in a store, and which failures are worth another try.

Credentials and endpoints are the client's own affair (`AWS_PROFILE`, `AWS_ENDPOINT_URL`,
`GOOGLE_APPLICATION_CREDENTIALS` ...): nothing of them is a setting, so nothing of them is saved.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from lightning_rad.storage.patience import PassingError
from lightning_rad.storage.settings import StorageError

_PASSING: Final = frozenset({408, 425, 429})
_NOT_THERE: Final = frozenset({404, 410})
_PASSING_CODES: Final = frozenset(
    {"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "Throttling"}
)
_FINAL: Final = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_SLACK: Final = 4.0
"""A request as a whole gets this many times the seconds that it may be without a byte: blocks are
small, and one that trickles is asked for again."""


class Door:
    """Reads and writes objects of one kind of store. Safe to use from many threads.

    scheme: one of `urls.SCHEMES`. timeout: seconds without a byte that end a request; as a whole
    it ends after four times as many. Raises StorageError where the extra is not installed.
    """

    def __init__(self, scheme: str, *, timeout: float, connections: int) -> None:
        self._scheme, self._timeout, self._connections = scheme, timeout, connections
        self._lock = threading.Lock()
        self._made: Any = None

    def read(self, url: str, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on. Raises PassingError, or StorageError naming the URL."""
        data = self._do(url, "_cat_file", self._path(url), start=offset, end=offset + size)
        if len(data) > size:
            raise StorageError(f"{url}: the server does not answer requests for ranges of bytes")
        if len(data) < size:
            raise PassingError(f"{len(data)} of {size} bytes at offset {offset}")
        return bytes(data)

    def whole(self, url: str) -> bytes:
        """All of a small object. Raises as `read`."""
        return bytes(self._do(url, "_cat_file", self._path(url)))

    def size(self, url: str) -> int | None:
        """Bytes of an object, None where there is none. Raises as `read`."""
        try:
            return int(self._do(url, "_info", self._path(url))["size"])
        except StorageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    def put(self, file: Path, url: str) -> None:
        """Copy a local file to an object. Raises as `read`."""
        self._do(url, "_put_file", str(file), self._path(url))

    def _do(self, url: str, method: str, *args: Any, **given: Any) -> Any:
        system = self._system()
        from fsspec.asyn import sync  # noqa: PLC0415 - an extra

        limit = None if method == "_put_file" else _SLACK * self._timeout
        try:
            return sync(system.loop, getattr(system, method), *args, timeout=limit, **given)
        except Exception as error:  # every client has its own
            raise judged(url, error) from error

    def _path(self, url: str) -> str:
        return url if self._scheme.startswith("http") else url.partition("://")[2]

    def _system(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = self._make()
        return self._made

    def _make(self) -> Any:
        try:
            return _MAKERS[self._scheme](self._timeout, self._connections)
        except ImportError as error:
            raise StorageError(
                f"{self._scheme}:// needs {error.name}: pip install 'lightning-rad[remote]'"
            ) from None


def judged(url: str, error: Exception) -> Exception:
    """What a client's error is: PassingError, or StorageError naming the URL."""
    if isinstance(error, PassingError | StorageError):
        return error
    status = _status(error)
    if isinstance(error, FileNotFoundError) or status in _NOT_THERE:
        told = "not there (404)"
    elif isinstance(error, PermissionError) or status in (401, 403):
        told = "access denied (are credentials set?)"
    elif status is not None:
        told = f"the server answers {status}"
    else:
        told = "no answer in time" if isinstance(error, TimeoutError) else _told(error)
    if status is None:
        passing = not isinstance(error, _FINAL) and not _is_of_setup(error)
    else:
        passing = status in _PASSING or status >= 500
    return PassingError(told) if passing else StorageError(f"{url}: {told}")


def _status(error: BaseException | None) -> int | None:
    """The status of HTTP that a client's error stands for; half an answer has none."""
    for name in ("status", "code"):  # of aiohttp, of gcsfs
        value = getattr(error, name, None)
        if isinstance(value, int) and 100 <= value < 600:
            return value
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, Mapping):  # of botocore
            if response.get("Error", {}).get("Code") in _PASSING_CODES:
                return 503
            return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400))
        error = error.__cause__
    return None


def _is_of_setup(error: Exception) -> bool:
    """Whether it is about credentials, profiles or names, which no second try changes."""
    kind = type(error)
    named = kind.__name__.endswith(("CredentialsError", "ProfileNotFound", "ParamValidationError"))
    return named or isinstance(error, TypeError | ValueError | ImportError)


def _told(error: Exception) -> str:
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__


def _http(timeout: float, connections: int) -> Any:
    import aiohttp  # noqa: PLC0415 - an extra
    from fsspec.implementations.http import HTTPFileSystem  # noqa: PLC0415

    limits = aiohttp.ClientTimeout(total=None, sock_connect=timeout, sock_read=timeout)

    async def client(**given: Any) -> Any:
        lanes = aiohttp.TCPConnector(limit=connections + 2)
        plain = {"Accept-Encoding": "identity"}  # ranges are of the object, not of its archive
        return aiohttp.ClientSession(
            connector=lanes, timeout=limits, headers=plain, trust_env=True, **given
        )

    return HTTPFileSystem(
        get_client=client, use_listings_cache=False, skip_instance_cache=True, encoded=False
    )


def _s3(timeout: float, connections: int) -> Any:
    from s3fs import S3FileSystem  # noqa: PLC0415 - an extra

    class Once(S3FileSystem):  # type: ignore[misc]  # what is made again is for Patience to say
        retries = 1

    return Once(
        config_kwargs={
            "connect_timeout": timeout,
            "read_timeout": timeout,
            "retries": {"max_attempts": 0},
            "max_pool_connections": connections + 2,
            # newer checksums that other makers' stores do not all know; ours is the manifest's
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        },
        use_listings_cache=False,
        skip_instance_cache=True,
    )


def _gs(timeout: float, connections: int) -> Any:  # noqa: ARG001 - one signature
    from gcsfs import GCSFileSystem  # noqa: PLC0415 - an extra

    return GCSFileSystem(
        requests_timeout=timeout, use_listings_cache=False, skip_instance_cache=True
    )


_MAKERS: Final[dict[str, Callable[[float, int], Any]]] = {
    "http": _http,
    "https": _http,
    "s3": _s3,
    "gs": _gs,
}


@cache
def door(scheme: str, timeout: float, connections: int) -> Door:
    """The one door of a process to a kind of store, opened at its first use."""
    return Door(scheme, timeout=timeout, connections=connections)
