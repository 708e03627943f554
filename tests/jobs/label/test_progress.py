"""What a person is told while a run goes on: one line an interval, by a clock that the test sets."""

from __future__ import annotations

import io

import pytest

from gazetteer.jobs.label.progress.bars import Progress


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("gazetteer.jobs.label.progress.bars.time", clock)
    return clock


def test_a_line_an_interval_with_rate_and_time_left(clock: Clock) -> None:
    stream = io.StringIO()
    progress = Progress("label", 100, 20, stream=stream, interval=10.0)
    clock.now += 9.0
    progress.add(10)
    assert stream.getvalue() == "", "the interval is not over"
    clock.now += 11.0
    progress.add(8, failed=2)
    # 18 pictures in 20 s; of the 100 there are 38 done and 2 given up, 60 left: 60 / 0.9 = 67 s.
    assert stream.getvalue() == "label: 38/100, 2 failed, 0.90 img/s, about 67 s left\n"
    clock.now += 5.0
    progress.add(2)
    assert len(stream.getvalue().splitlines()) == 1
    progress.close()
    assert stream.getvalue().splitlines()[1:] == ["label: 40/100, 2 failed, 0.80 img/s, about 72 s left"]
    clock.now += 20.0
    progress.add(0)
    progress.close()
    assert len(stream.getvalue().splitlines()) == 2, "what was said is not said again"


def test_before_the_first_picture_nothing_is_promised(clock: Clock) -> None:
    stream = io.StringIO()
    progress = Progress("cover", 8, stream=stream)
    clock.now += 10.0
    progress.add(0)
    assert stream.getvalue() == "cover: 0/8, 0.00 img/s\n"
    assert progress.state()["seconds_left"] is None


def test_a_terminal_gets_a_bar_and_no_lines(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    progress = Progress("label", 10, 4, stream=stream, interval=0.0)
    clock.now += 10.0
    progress.add(5, failed=1)
    progress.close()
    last = stream.getvalue().split("label")[-1]
    assert "10/10" in last
    assert "1 failed, 0.50 img/s" in last
    assert "label: 9/10," not in stream.getvalue()
