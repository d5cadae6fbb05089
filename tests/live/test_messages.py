"""What a page may send."""

import pytest

from sage_jax.errors import UserError
from sage_jax.live.messages import MAX_BYTES, Change, Command, Hello, Key, Ping, parse
from sage_jax.live.rate import Bucket


def test_messages():
    assert parse('{"type": "hello"}') == Hello("", {})
    assert parse('{"type": "ping", "sent": 2}') == Ping(2.0)
    assert parse('{"type": "on", "pitch": 60, "velocity": 1, "at": 1.5, "more": 0}') == Key(60, 1, None, 1.5)
    assert parse('{"type": "off", "pitch": 60, "program": 128, "velocity": 9}') == Key(60, 0, 128, None)
    assert parse('{"type": "settings", "settings": {"meter": [6, 8], "top_p": null, "lead": 1}}') == Change(
        {"meter": (6, 8), "top_p": None, "lead": 1.0}
    )
    assert parse('{"type": "panic"}') == Command("panic")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is not JSON"),
        ("[" * 3000, "is not JSON"),
        (" " * MAX_BYTES + "1", "more than 4096 bytes"),
        ("[1]", "no type"),
        ('{"type": "off\\ud800"}', "unknown"),
        ('{"type": "on", "pitch": 60}', "on.velocity is null"),
        ('{"type": "on", "pitch": 6e1, "velocity": 1}', "on.pitch is 60.0"),
        ('{"type": "on", "pitch": 128, "velocity": 1}', "on.pitch is 128"),
        ('{"type": "on", "pitch": 60, "velocity": 1, "at": NaN}', "on.at is NaN"),
        ('{"type": "on", "pitch": 60, "velocity": 1, "at": 1e999}', "on.at is Infinity"),
        ('{"type": "off", "pitch": true}', "off.pitch is true"),
        ('{"type": "on", "pitch": 60, "velocity": 1, "program": 129}', "on.program is 129"),
        ('{"type": "ping"}', "ping.sent is null"),
        ('{"type": "settings"}', "settings is null"),
        ('{"type": "settings", "settings": {"speed": 1}}', "settings.speed is unknown"),
        ('{"type": "settings", "settings": {"meter": [3]}}', "live.meter is [3]"),
        ('{"type": "settings", "settings": {"instruments": []}}', "live.instruments is []"),
        ('{"type": "settings", "settings": {"mode": 3}}', "live.mode is 3"),
    ],
)
def test_rubbish_is_one_line_that_names_the_field(text, reason):
    with pytest.raises(UserError) as caught:
        parse(text)
    message = str(caught.value)
    assert reason in message and "\n" not in message and len(message) < 200


def test_the_bucket_gives_a_burst_and_then_a_rate():
    bucket = Bucket(10, 3, 0.0)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(0.1), bucket.take(0.15), bucket.take(0.2)] == [True, False, True]
    assert [bucket.take(100) for _ in range(4)] == [True, True, True, False]
