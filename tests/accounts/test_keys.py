from __future__ import annotations

import hashlib
import re

from oanim_server.accounts.keys import Key, hash_of, key_id_of


def test_a_key_has_eight_public_and_twenty_four_secret_characters() -> None:
    key = Key()
    assert re.fullmatch(r"anim_[0-9A-Za-z]{8}_[0-9A-Za-z]{24}", key.token)
    assert key_id_of(key.token) == key.key_id
    assert key.secret_hash == hash_of(key.token) == hashlib.sha256(key.token.encode()).digest()


def test_no_two_keys_are_alike() -> None:
    assert len({Key().token for _ in range(1_000)}) == 1_000


def test_a_key_does_not_show_its_secret() -> None:
    key = Key()
    assert key.secret not in repr(key)
    assert key.secret not in f"{key}"


def test_what_is_not_shaped_like_a_key_has_no_id() -> None:
    good = "anim_12345678_123456789012345678901234"
    assert key_id_of(good) == "12345678"
    for bad in (
        "",
        good[:-1],
        good + "1",
        good + "\n",
        good.replace("anim", "Anim"),
        good.replace("1", "\u0661"),
        "anim_1234567-_" + "x" * 24,
        "\udc80",
    ):
        assert key_id_of(bad) is None
        assert len(hash_of(bad)) == 32
