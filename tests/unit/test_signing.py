from __future__ import annotations

import pytest

from batchq.broker.signing import NotSigned, Signer, is_local, signer_of

KEY = "0123456789abcdef"


def test_what_was_sealed_for_a_purpose_opens_for_it() -> None:
    assert Signer(KEY).open("message", Signer(KEY).seal("message", "ä\n\ud800")) == "ä\n\ud800"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda sealed: sealed + " ", "changed after it was signed"),
        (lambda sealed: sealed.replace("run: r1", "run: r2"), "changed after it was signed"),
        (lambda sealed: sealed[:9] + "0" * 64 + sealed[73:], "changed after it was signed"),
        (lambda sealed: "é" + sealed[1:], "signed with another key than ours"),
        (lambda sealed: sealed.partition("\n")[2], "not signed"),
        (lambda sealed: sealed[20:], "not signed"),
        (lambda _: "", "not signed"),
        (lambda _: Signer("another key of 24 bytes").seal("message", "run: r1"), "another key"),
        (lambda _: Signer(KEY).seal("step", "run: r1"), "changed after it was signed"),
    ],
)
def test_what_is_not_as_it_was_sealed_is_refused_by_name(damage, reason) -> None:
    signer = Signer(KEY)

    with pytest.raises(NotSigned, match=reason):
        signer.open("message", damage(signer.seal("message", "run: r1")))


def test_a_key_of_its_own_goes_before_the_password_and_off_signs_nothing() -> None:
    url = "redis://:p%40ss@10.0.0.1:6379/0"

    assert signer_of("", url).name == Signer("p@ss").name
    assert signer_of(KEY, url).name == Signer(KEY).name
    assert signer_of("off", url) is None
    assert signer_of("", "redis://10.0.0.1:6379/0") is None


def test_all_hosts_come_to_the_same_key_however_they_name_the_broker() -> None:
    urls = ("redis://:w@127.0.0.1/0", "rediss://:w@10.0.0.1:7000/0", "sentinel://:w@a:1,b:2/m")

    assert len({signer_of("", url).name for url in urls}) == 1


def test_a_key_is_told_apart_by_a_name_that_does_not_give_it_away() -> None:
    signer = Signer(KEY)

    assert KEY not in signer.seal("message", "")
    assert len(signer.name) == 8


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("redis+socket:///run/r.sock", True),
        ("redis://", True),
        ("redis://:p@127.0.0.2:1/0", True),
        ("redis://[::1]:1/0", True),
        ("redis://redis:6379/0", False),
        ("sentinel://a,b/main", False),
    ],
)
def test_a_broker_on_this_host_is_local(url: str, local: bool) -> None:
    assert is_local(url) is local
