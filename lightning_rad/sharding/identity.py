"""Who is who without saying who: salted hashes of patients and studies, and their splits.

One secret salt serves all sets and tasks of a site, so that the same patient has the same hash,
and falls in the same split, in every set of a namespace.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lightning_rad.schema import SPLITS

SALT_VARIABLE: Final = "LIGHTNING_RAD_SALT_FILE"
"""Environment variable that names the salt file where no argument does."""

SALT_DEFAULT: Final = "~/.config/lightning_rad/salt"
"""The salt file where neither an argument nor the environment names one."""

_PUBLIC: Final = hashlib.sha256(b"lightning-rad public salt").digest()


@dataclass(frozen=True, slots=True)
class Identity:
    """Hashes the identifiers of one namespace under one salt."""

    salt: bytes
    namespace: str

    @property
    def salt_id(self) -> str:
        """Tells two salts apart without giving either away."""
        return self._digest("salt")[:8]

    def patient(self, identifier: str) -> str:
        """16 hexadecimal digits, never all zero."""
        return _nonzero(self._digest("patient", self.namespace, identifier))

    def study(self, patient: str, study: str) -> str:
        """16 hexadecimal digits, never all zero; identifiers as the source spells them."""
        return _nonzero(self._digest("study", self.namespace, patient, study))

    def split(self, patient: str, shares: Mapping[str, float]) -> str:
        """The split of a patient: one uniform number a patient, against the shares in order."""
        point = int(self._digest("split", self.namespace, patient)[:16], 16) / 2**64
        present = [s for s in SPLITS if shares.get(s, 0) > 0]
        edge = 0.0
        for name in present[:-1]:
            edge += shares[name]
            if point < edge:
                return name
        return present[-1]

    def _digest(self, *parts: str) -> str:
        # Lengths keep ("ab", "c") and ("a", "bc") apart.
        body = b"".join(len(p.encode()).to_bytes(8, "big") + p.encode() for p in parts)
        return hashlib.sha256(self.salt + body).hexdigest()


def _nonzero(digest: str) -> str:
    return digest[:16] if int(digest[:16], 16) else "0" * 15 + "1"


def load_salt(
    policy: str | None, salt_file: Path | None, *, apart_from: Path | None = None
) -> bytes:
    """The salt: public, or 32 bytes from a secret file that is made at first use.

    policy: a recipe's `salt`. salt_file: where the secret lies; without it the file that
    LIGHTNING_RAD_SALT_FILE names, else ~/.config/lightning_rad/salt. apart_from: the folder of the
    shards, which the secret must not lie in. Raises ValueError.
    """
    if policy == "public":
        return _PUBLIC
    path = Path(salt_file or os.environ.get(SALT_VARIABLE) or SALT_DEFAULT).expanduser()
    if apart_from is not None and path.resolve().is_relative_to(apart_from.resolve()):
        raise ValueError(
            f"salt_file: {path} lies in {apart_from}, the folder of the shards; keep the secret "
            f"outside it, or whoever gets the shards can find out who the patients are"
        )
    if not path.exists():
        _make_salt(path)
    text = path.read_text(encoding="ascii", errors="replace").strip()
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise ValueError(f"{path}: a salt file holds 64 hexadecimal digits")
    return bytes.fromhex(text)


def _make_salt(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(os.urandom(32).hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(part, path)  # fails where another process was first: then its salt counts
    except FileExistsError:
        return
    finally:
        part.unlink()
    sys.stderr.write(
        f"made the secret salt {path}: keep it, and keep it apart from the shards; "
        "without it the same patient gets another hash and another split\n"
    )
