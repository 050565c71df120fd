"""A lost peer is one line, an own error keeps its traceback, and both name rank, host and step."""

import socket
from unittest import mock

import pytest
import torch.distributed as dist

from lightning_rad.data.reader import TooManyBadSamplesError
from lightning_rad.objectives.loss_guard import LossDivergedError
from lightning_rad.training import death
from lightning_rad.training.death import LastWords

HOST = socket.gethostname()
LOST = (
    "[pair.cc:561] Connection closed by peer [10.0.0.2]:6033. This is typically caused by ...",
    "[unbound_buffer.cc:81] Timed out waiting 15000ms for recv operation to complete",
    "NCCL error: ncclRemoteError: A call failed possibly due to a network error",
)


@pytest.fixture(autouse=True)
def no_timer(monkeypatch: pytest.MonkeyPatch) -> mock.Mock:
    timer = mock.Mock()
    monkeypatch.setattr(death.threading, "Timer", timer)
    return timer


def noted(error: Exception, *, ranks: int = 2, begun: bool = True) -> Exception:
    """The error, with what the callback does to it in a run."""
    words, trainer = LastWords(), mock.Mock(world_size=ranks, global_step=7)
    if begun:
        words.on_train_start(trainer, mock.Mock())
    words.on_exception(trainer, mock.Mock(), error)
    return error


@pytest.mark.parametrize("text", LOST)
def test_a_lost_peer_is_one_line(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert death.told(noted(RuntimeError(text)))
    said = capsys.readouterr().err
    assert said == f"rank 0 on {HOST}: lost another rank at step 7: {text}\n"


def test_a_lost_store_is_a_lost_peer(capsys: pytest.CaptureFixture[str]) -> None:
    assert death.told(noted(dist.DistNetworkError("failed to recv")))
    assert "lost another rank at step 7: failed to recv" in capsys.readouterr().err


def test_an_own_error_keeps_its_traceback(
    capsys: pytest.CaptureFixture[str], no_timer: mock.Mock
) -> None:
    with pytest.raises(ValueError, match="wrong") as raised:
        raise ValueError("wrong")
    assert death.told(noted(raised.value))
    said = capsys.readouterr().err
    assert said.startswith(f"rank 0 on {HOST}: ValueError at step 7\nTraceback")
    assert "ValueError: wrong" in said
    no_timer.return_value.start.assert_called_once()  # cleaning up may hang


def test_an_error_of_the_cleaning_up_does_not_hide_the_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = noted(RuntimeError(LOST[0]))
    with pytest.raises(OSError, match="cleaning") as raised:  # noqa: PT012
        try:
            raise first
        except RuntimeError:
            raise OSError("while cleaning up")  # noqa: B904 - as it happens
    assert death.told(raised.value)
    assert "lost another rank at step 7" in capsys.readouterr().err


def test_before_the_first_step_it_is_the_users_error() -> None:
    assert not death.told(noted(ValueError("a setting"), begun=False))


def test_alone_it_is_the_users_error_until_a_batch_was_trained_on(
    capsys: pytest.CaptureFixture[str], no_timer: mock.Mock
) -> None:
    assert not death.told(noted(ValueError("a file"), ranks=1))
    error, words, trainer = OSError(116, "Stale file handle"), LastWords(), mock.Mock(world_size=1)
    words.on_train_batch_end(trainer, mock.Mock(), None, None, 0)
    words.on_exception(trainer, mock.Mock(), error)
    assert death.told(error)
    assert "Stale file handle" in capsys.readouterr().err
    no_timer.return_value.start.assert_not_called()


@pytest.mark.parametrize("error", [LossDivergedError("bad"), TooManyBadSamplesError("bad")])
def test_what_is_no_accident_is_told_in_one_line_elsewhere(
    error: Exception, no_timer: mock.Mock
) -> None:
    assert not death.told(noted(error))
    no_timer.return_value.start.assert_not_called()
