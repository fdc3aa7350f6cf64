"""Some attacks on a service that listens; all of them: `python tests/siege attacks`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from fake_worker import CARD, work
from pinglow.serve import connections, server
from pinglow.serve.pool import Pool
from pinglow.serve.settings import ServeSettings
from siege import attacks
from siege.attacks import REFUSED, SECRET, Attack
from siege.wire import Exchange, Reply, exchange, once, request

TOKEN = "correct-Horse"
_EACH = 12


def choose(*families: Iterable[Attack]) -> list[Attack]:
    """A dozen of each family, evenly."""
    made = [[attack for attack in family if not attack.slow] for family in families]
    return [attack for each in made for attack in each[:: -(-len(each) // _EACH)]]


def besiege(
    monkeypatch: pytest.MonkeyPatch, settings: ServeSettings, tries: list[Attack]
) -> list[Exchange]:
    """What a service, with a worker that has no model, says to attacks that come together."""
    monkeypatch.setattr(server, "Pool", partial(Pool, work=work))
    monkeypatch.setattr(server, "log_to_stderr", lambda: None)
    found: list[Exchange] = []

    async def attack(port: int) -> None:
        ready = once(request("GET", "/readyz"))
        while (await exchange(port, ready)).replies[0].status != 200:
            pass
        found.extend(await asyncio.gather(*(_try(port, each) for each in tries)))

    def run(address: str) -> None:
        try:
            asyncio.run(attack(int(address.rpartition(":")[2])))
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    server.run(settings, lambda address: threading.Thread(target=run, args=(address,)).start())
    return found


async def _try(port: int, attack: Attack) -> Exchange:
    patience, held = min(attack.patience, 2), _holds if attack.slow else None
    return await exchange(port, attack.send, patience, attack.answers, attack.read_every, held)


def _holds(port: int) -> bool:
    """Whether a connection from a port is open at our side."""
    lines = psutil.Process().net_connections("tcp")
    return any(line.raddr and line.raddr.port == port for line in lines)


def faults(tries: list[Attack], found: list[Exchange]) -> list[str]:
    judged = [attack.judge(each, ()) for attack, each in zip(tries, found, strict=True)]
    return [fault for fault in judged if fault]


def test_no_attack_gets_through(monkeypatch: pytest.MonkeyPatch) -> None:
    families = (attacks.traversals("/etc"), attacks.smuggling(), attacks.heads())
    # The worker's answers are no tensors: of those only what is refused before.
    tensors = (each for each in attacks.tensors(CARD["name"]) if each.allowed == REFUSED)
    tries = choose(*families, tensors, attacks.queries(), attacks.sockets())
    assert len(tries) > 50
    found = besiege(monkeypatch, ServeSettings(port=0, max_mb=1), tries)
    assert faults(tries, found) == []


def test_no_attempt_at_the_token_gets_through(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = choose(attacks.tokens(TOKEN))
    found = besiege(monkeypatch, ServeSettings(port=0, token=TOKEN), tries)
    assert faults(tries, found) == []


def test_what_gets_through_is_seen() -> None:
    attack = Attack("x", "x", once(b""))
    assert attack.judge(Exchange([Reply(404, "", b"")]), ()) is None
    assert "200" in str(attack.judge(Exchange([Reply(200, "", b"")]), ()))
    assert "no answer" in str(attack.judge(Exchange(), ()))
    assert "2 answers" in str(attack.judge(Exchange([Reply(404, "", b"")] * 2), ()))
    assert SECRET in str(attack.judge(Exchange([Reply(404, "", SECRET.encode())]), ()))
    place = Path("/var/service")
    told = Exchange([Reply(422, "", f"{place}/x is broken".encode())])
    assert str(place) in str(attack.judge(told, (str(place),)))


def test_versions_of_the_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = ("9.9", "2.0", "1.0", "1.2")
    tries = [
        Attack("head", each, once(request("GET", "/healthz", version=each))) for each in versions
    ]
    found = besiege(monkeypatch, ServeSettings(port=0), tries)
    assert [each.replies[0].status for each in found] == [505, 505, 200, 200]


def test_who_does_not_read_loses_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_READ", 0.2)
    many = once(request("GET", "/openapi.json") * 500)
    attack = Attack("slow", "answers not read", many, answers=500, read_every=0.1, slow=True)
    limits = set()
    begin = connections.Connection.connection_made

    def connection_made(self: Any, transport: Any) -> None:
        begin(self, transport)
        limits.add(transport.get_write_buffer_limits())

    monkeypatch.setattr(connections.Connection, "connection_made", connection_made)
    [found] = besiege(monkeypatch, ServeSettings(port=0), [attack])
    assert not found.held
    assert limits == {(0, 0)}  # also what would fit into a buffer must be read


def test_what_is_no_http_gets_a_sentence_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    long = request("GET", f"/v1/models?x={'x' * 70_000}")
    tries = [Attack("head", "noise", once(b"x\r\n\r\n")), Attack("head", "long", once(long))]
    for each in besiege(monkeypatch, ServeSettings(port=0), tries):
        [reply] = each.replies
        assert reply.status == 400
        assert reply.header("content-type") == "application/json"
        said = json.loads(reply.body)
        assert said["detail"].endswith("or its head is longer than 64 KB")
        assert said["request_id"] == reply.header("x-request-id")
