import io

from kit.progress import Tick, console, part, time_left, track, words


def test_track_reports_before_the_first_and_after_each():
    ticks = []
    assert list(track("ab", ticks.append, note="reading")) == ["a", "b"]
    assert ticks == [(0, 2, "reading"), (1, 2, "reading"), (2, 2, "reading")]


def test_words_say_what_how_far_and_how_long():
    assert words(Tick(14, 60, "calibrating"), 1.52) == "calibrating 14/60, about 5 s left"
    assert words(Tick(0, None, "")) == "working"


def test_where_the_total_is_unknown_the_number_says_what_it_is():
    assert words(Tick(3, None, "reading")) == "reading (3 done)"
    assert words(Tick(2, None, "trying OpenVINO INT8, 2 threads")) == "trying OpenVINO INT8, 2 threads (2 done)"
    assert words(Tick(0, None, "starting"), 9) == "starting"


def test_no_time_is_promised_before_the_first_step_or_after_the_last():
    assert time_left(Tick(0, 10), 5) == time_left(Tick(10, 10), 5) == time_left(Tick(3), 5) == ""
    assert time_left(Tick(1, 101), 6) == "about 10 min left"


def test_a_part_puts_its_name_before_each_note():
    ticks = []
    part(ticks.append, "detector")(Tick(1, 2, "running"))
    assert ticks == [(1, 2, "detector: running")]


def test_the_console_prints_each_note_once_when_ticks_come_fast():
    stream = io.StringIO()
    report = console(stream, every=60)
    for done in range(5):
        report(Tick(done, 5, "first"))
    report(Tick(0, 1, "second"))
    assert stream.getvalue().splitlines() == ["  first 0/5", "  second 0/1"]
