import time

import pytest

from lightning_rad.sharding.progress import Meter


def test_without_a_terminal_a_line_now_and_then_tells_rate_and_time_left(capfd):
    with Meter("building x", 100, already=40, every=0.05) as meter:
        meter.show(1)
        assert capfd.readouterr().err == ""
        time.sleep(0.06)
        meter.show(20)
        meter.show(21)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("building x: 60/100 images, ")
    assert line.endswith(" s left")


def test_on_a_terminal_a_bar_shows_count_and_rate(monkeypatch, capfd):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with Meter("building x", 100, already=40) as meter:
        meter.show(60)
    text = capfd.readouterr().err
    assert "100/100" in text
    assert "/s, " in text
    assert " s left" in text


@pytest.mark.parametrize("terminal", [False, True])
def test_before_anything_is_done_no_rate_is_told(monkeypatch, capfd, terminal):
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "100")
    with Meter("building x", 100, every=0.0) as meter:
        meter.show(0)
    text = capfd.readouterr().err
    assert "0/100" in text
    assert not [word for word in ("/s", "inf", "left") if word in text]
