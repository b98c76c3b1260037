"""Memory stays within its bounds, whatever is put in."""

from __future__ import annotations

import threading

import pytest

from pointrend.app.lru_cache import Kept


def test_the_least_recently_used_goes_first() -> None:
    kept = Kept[bytes](len, most_bytes=10)
    kept.put("a", b"1234")
    kept.put("b", b"1234")
    assert kept.get("a") == b"1234"
    kept.put("c", b"1234")
    assert kept.get("b") is None
    assert kept.get("a") == kept.get("c") == b"1234"
    assert kept.bytes == 8


def test_a_value_that_is_too_large_alone_is_not_kept_and_drives_nothing_out() -> None:
    kept = Kept[bytes](len, most_bytes=10)
    kept.put("a", b"12")
    kept.put("b", b"12345678901")
    assert kept.get("b") is None
    assert kept.get("a") == b"12"


def test_the_number_is_bounded_too() -> None:
    kept = Kept[bytes](len, most_bytes=10, most=2)
    for key in "abc":
        kept.put(key, b"")
    assert len(kept) == 2


def test_a_new_value_takes_the_place_of_the_old() -> None:
    kept = Kept[bytes](len, most_bytes=10)
    kept.put("a", b"123456")
    kept.put("a", b"1234567")
    assert (len(kept), kept.bytes) == (1, 7)


def test_what_is_named_is_forgotten() -> None:
    kept = Kept[bytes](len, most_bytes=10)
    kept.put(("model", 1), b"1")
    kept.put(("other", 1), b"1")
    kept.forget(lambda key: key == ("model", 1))
    assert kept.get(("model", 1)) is None
    assert (len(kept), kept.bytes) == (1, 1)


def test_many_threads_keep_the_count_right() -> None:
    kept = Kept[bytes](len, most_bytes=50)

    def work(number: int) -> None:
        for i in range(200):
            kept.put((number, i % 7), b"123")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kept.bytes == 3 * len(kept) <= 50


def test_room_for_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one byte"):
        Kept[bytes](len, most_bytes=0)
