"""Memory stays within its bounds, whatever is put in."""

from __future__ import annotations

import threading

import pytest

from pointrend.app.model_cache import LRUCache


def test_the_least_recently_used_goes_first() -> None:
    cache = LRUCache[str, bytes](10, len)
    cache.put("a", b"1234")
    cache.put("b", b"1234")
    assert cache.get("a") == b"1234"
    assert cache.put("c", b"1234") == ["b"]
    assert cache.get("b") is None
    assert cache.get("a") == cache.get("c") == b"1234"
    assert cache.used == 8


def test_a_value_that_is_too_large_alone_is_not_stored_and_drives_nothing_out() -> None:
    cache = LRUCache[str, bytes](10, len)
    cache.put("a", b"12")
    assert cache.put("b", b"12345678901") == []
    assert cache.get("b") is None
    assert cache.get("a") == b"12"


def test_without_sizes_the_values_are_counted() -> None:
    cache = LRUCache[str, bytes](2)
    for key in "abc":
        cache.put(key, b"")
    assert len(cache) == 2
    assert "a" not in cache


def test_a_new_value_takes_the_place_of_the_old() -> None:
    cache = LRUCache[str, bytes](10, len)
    cache.put("a", b"123456")
    cache.put("a", b"1234567")
    assert (len(cache), cache.used) == (1, 7)


def test_unwanted_values_are_dropped() -> None:
    cache = LRUCache[tuple[str, int], bytes](10, len)
    cache.put(("model", 1), b"1")
    cache.put(("other", 1), b"1")
    cache.drop(lambda key: key[0] == "model")
    assert cache.get(("model", 1)) is None
    assert (len(cache), cache.used) == (1, 1)


def test_many_threads_leave_the_sum_right() -> None:
    cache = LRUCache[tuple[int, int], bytes](50, len)

    def work(number: int) -> None:
        for i in range(200):
            cache.put((number, i % 7), b"123")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.used == 3 * len(cache) <= 50


def test_a_capacity_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        LRUCache(0)
