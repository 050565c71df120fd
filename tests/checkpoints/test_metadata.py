"""Members of an enum are read however the writing Python pickled them, and nothing beside them."""

import io
import pickle
from typing import Any

import pytest
from torch.distributed.checkpoint import metadata

from lightning_rad.checkpoints.metadata import _Unpickler

FORMATS = metadata._MEM_FORMAT_ENCODING


def unpickled(content: bytes) -> Any:
    return _Unpickler(io.BytesIO(content)).load()


class AsGetattr:
    """What Python 3.11.2, Debian 12's, makes of a member of an enum."""

    def __init__(self, owner: Any, name: str) -> None:
        self.how = (getattr, (owner, name))

    def __reduce__(self) -> Any:
        return self.how


@pytest.mark.parametrize("member", list(FORMATS))
def test_a_member_is_read_however_it_was_pickled(member: Any) -> None:
    assert unpickled(pickle.dumps(member)) is member
    assert unpickled(pickle.dumps(AsGetattr(FORMATS, member.name))) is member


@pytest.mark.parametrize("owner", ["abc", 7, FORMATS.TORCH_PRESERVE_FORMAT])
def test_an_attribute_of_anything_else_is_refused(owner: Any) -> None:
    content = pickle.dumps(AsGetattr(owner, "__class__"))
    with pytest.raises(pickle.UnpicklingError, match="no checkpoint needs"):
        unpickled(content)


def test_what_is_no_member_is_refused() -> None:
    with pytest.raises((pickle.UnpicklingError, KeyError)):
        unpickled(pickle.dumps(AsGetattr(FORMATS, "__subclasses__")))
