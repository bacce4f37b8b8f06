"""Limits of connections bound those that are open, unused ones too: of a destination from one
source, and of a provider over all sources and delivery processes."""
import random
import socket
import threading
import time

import pytest

from postern import Postern, wait_until
from qmgr_peers import TARGET
from test_qmgr_operator import Control
from test_shaping import NO_CONNECTION, refusal, rules
from test_shaping_wholes import TWO, show
from test_sources import sources

LEAVES, LEFT, LOST, SPARED, NOT_SPARED = range(5)  # enum connection_change
BASE = """
default { start_rate = "100000/s" start_connections = 20 connections = 20 %s }
provider big { mx = {".big.test"} %s }
"""


@pytest.fixture
def c():
    c = Control()
    yield c
    c.stop()


def begin(c, everyone="", big=""):
    rules(c, BASE % (everyone, big))
    c.q.wait_log("providers.conf: 1 providers")


def to_big(c, count, name="a"):
    ids = []
    for n in range(count):
        ids.append(c.q.commit([f"{name}{n}@d.test"]))
        if not getattr(c, "known", False):
            c.q.resolved(site=b"mx1.big.test", targets=[dict(TARGET, host="mx1.big.test")])
            c.known = True
    return ids


def none(c, relay=None, seconds=0.1):
    assert (relay or c.q.relay).receive(seconds) is None


def change(c, lane, what, relay=None):
    (relay or c.q.relay).send("ipc_connection", lane=lane, change=what)


def test_an_unused_connection_counts_until_it_is_closed(c):
    begin(c, big="connections = 2 start_connections = 2")
    to_big(c, 2)
    jobs = [c.q.job(), c.q.job()]
    for job in jobs:
        c.q.result(job, connections=1, opened=1)
    wait_until(lambda: show(c, "big")["open"] == 2, 10, "two open ones")
    to_big(c, 1, "b")
    job = c.q.job()
    assert job.reuse_only
    c.q.result(job, use_count=2, leaving=1)
    to_big(c, 2, "c")
    job = c.q.job()  # one leaves, the other may be used
    assert job.reuse_only
    none(c)
    change(c, job.lane, LEFT)
    fresh = c.q.job()
    assert not fresh.reuse_only
    none(c)
    c.q.result(job, use_count=2)
    c.q.result(fresh, connections=1, opened=1)


def test_a_connection_that_cannot_be_used_gives_way(c):
    """It is of another kind (TLS, HELO): the delivery that had to come back waits until it has
    gone, and opens one of its own."""
    begin(c, big="connections = 1 start_connections = 1")
    to_big(c, 1)
    c.q.result(c.q.job(), connections=1, opened=1)
    (id,) = to_big(c, 1, "b")
    job = c.q.job()
    assert job.reuse_only
    c.q.result(job, scope=NO_CONNECTION, outcomes=refusal(0, "none", 1, local=1))
    assert c.q.relay.expect("ipc_spare").lane == job.lane
    none(c)
    change(c, job.lane, SPARED)
    none(c)
    change(c, job.lane, LEFT)
    job = c.q.job()
    assert (job.id.decode(), job.reuse_only) == (id, 0)
    c.q.result(job, connections=1)


def test_over_all_sources_an_unused_one_of_another_source_gives_way(c):
    begin(c, big="total_connections = 1")
    sources(c, TWO)
    to_big(c, 1)
    first = c.q.job()
    c.q.result(first, connections=1, opened=1)
    ids, spared = set(to_big(c, 12, "b")), 0
    used = set()
    while ids:
        m = c.q.relay.receive(10)
        if m.name == "ipc_spare":
            spared += 1
            change(c, m.lane, SPARED)
            none(c, seconds=0.02)
            change(c, m.lane, LEFT)
            continue
        used.add(m.source)
        ids.discard(m.id.decode())
        c.q.result(m, connections=not m.reuse_only, opened=not m.reuse_only)
        assert show(c, "big")["all_sources"]["open"] <= 1
    assert len(used) == 2 and spared >= 1


def test_what_none_is_spared_of_is_waited_for(c):
    begin(c, big="total_connections = 1")
    sources(c, TWO)
    to_big(c, 1)
    first = c.q.job()
    c.q.result(first, connections=1, opened=1)
    for n in range(40):  # until one from the other source waits
        to_big(c, 1, f"b{n}-")
        m = c.q.relay.receive(10)
        if m.name == "ipc_spare":
            break
        c.q.result(m, use_count=2)
    change(c, m.lane, LOST)  # the server has just closed it
    change(c, m.lane, NOT_SPARED)
    job = c.q.job()
    assert job.source != first.source and not job.reuse_only
    c.q.result(job, connections=1)


def test_connections_of_a_process_that_dies_are_gone(c):
    begin(c, big="connections = 1 start_connections = 1")
    to_big(c, 1)
    c.q.result(c.q.job(), connections=1, opened=1)
    wait_until(lambda: show(c, "big")["open"] == 1, 10, "an open one")
    c.q.relay.close()
    c.q.relays.pop()
    wait_until(lambda: show(c, "big")["open"] == 0, 10, "none")
    c.q.add_relay()
    to_big(c, 1, "b")
    job = c.q.job()
    assert not job.reuse_only
    c.q.result(job)


def test_the_process_that_has_the_connection_gets_the_delivery(c):
    begin(c, big="connections = 2 start_connections = 2")
    other = c.q.add_relay(1)
    to_big(c, 1)
    ours = wait_until(lambda: next(((r, m) for r in c.q.relays if (m := r.receive(0.05))), None), 10, "a job")
    c.q.result(ours[1], relay=ours[0], connections=1, opened=1)
    for _ in range(3):
        to_big(c, 1, "b")
        job = ours[0].expect("ipc_deliver")
        assert job.reuse_only
        c.q.result(job, relay=ours[0], use_count=2)
    assert other


def test_connections_beyond_a_limit_that_fell_are_closed(c):
    begin(c, big="connections = 3 start_connections = 3")
    to_big(c, 3)
    jobs = [c.q.job() for _ in range(3)]
    for job in jobs:
        c.q.result(job, connections=1, opened=1)
    rules(c, BASE % ("", "connections = 1 start_connections = 1"))
    wait_until(lambda: c.q.count("providers.conf: 1 providers") == 2, 10, "the rules")
    to_big(c, 1, "b")
    job = c.q.job()
    c.q.result(job, use_count=2)
    for _ in range(2):
        assert c.q.relay.expect("ipc_spare").lane == job.lane
        change(c, job.lane, SPARED)
        change(c, job.lane, LEFT)
    none(c)


@pytest.mark.parametrize("what", [LEAVES, LEFT, LOST, SPARED, NOT_SPARED, 9])
def test_B93_a_connection_that_is_not_there_closes_the_channel(c, what):
    begin(c)
    to_big(c, 1)
    job = c.q.job()
    change(c, job.lane, what)
    c.q.wait_log("of a connection that is not there")


@pytest.mark.parametrize("fields", [dict(leaving=1), dict(opened=1, scope=NO_CONNECTION)])
def test_B93_a_result_that_cannot_be_closes_the_channel(c, fields):
    begin(c)
    to_big(c, 1)
    c.q.result(c.q.job(), **fields, outcomes=refusal(0, "none", 1, local=1))
    c.q.wait_log("RESULT: a|RESULT: not tried")


# ---- a whole relay ----------------------------------------------------------------------------


class Counting:
    """A server that counts the connections that are open at a time, all and by client address."""

    def __init__(self, pause=0.01):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=500)
        self.port = self.listener.getsockname()[1]
        self.lock, self.pause = threading.Lock(), pause
        self.open, self.most, self.messages, self.connections = {}, {}, 0, 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                s, peer = self.listener.accept()
            except OSError:
                return
            self.count(peer[0], 1)
            threading.Thread(target=self.serve, args=(s, peer[0]), daemon=True).start()

    def count(self, peer, by):
        with self.lock:
            self.connections += by > 0
            for key in (peer, "all"):
                self.open[key] = self.open.get(key, 0) + by
                self.most[key] = max(self.most.get(key, 0), self.open[key])

    def serve(self, s, peer):
        try:
            self.session(s)
        except OSError:
            pass
        finally:
            self.count(peer, -1)  # before the client can know
            s.close()

    def session(self, s):
        f = s.makefile("rwb")

        def say(line):
            f.write(line + b"\r\n")
            f.flush()
        say(b"220 big.test")
        for line in iter(f.readline, b""):
            verb = line[:4].upper()
            if verb == b"DATA":
                say(b"354 go on")
                while f.readline().strip() != b".":
                    pass
                time.sleep(self.pause * random.random() * 2)
                with self.lock:
                    self.messages += 1
                say(b"250 ok")
            elif verb == b"QUIT":
                say(b"221 bye")
                return
            else:
                say(b"250 ok")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()


def relay(tmp_path, server, limits, addresses, **config):
    (tmp_path / "providers.conf").write_text(
        'default { start_rate = "100000/s" start_connections = 10 connections = 10 }\n'
        "provider big { domains = {\"d.test\"} %s }\n" % limits)
    (tmp_path / "sources.conf").write_text("".join(
        f"source s{n} {{ ipv4 = 127.0.1.{n} }}\n" for n in range(1, addresses + 1)))
    p = Postern(tmp_path / "p", start=False, relayhost=f"[127.0.0.1]:{server.port}",
                provider_config_file=str(tmp_path / "providers.conf"),
                source_config_file=str(tmp_path / "sources.conf"), **config)
    p.master_cf += "relay unix y - y - 4 relay\n"
    p.write_config()
    p.start()
    return p


def send_all(p, server, bursts, each):
    """Bursts, so that connections are left unused between them."""
    count = 0
    for burst in range(bursts):
        for n in range(each):
            p.send("s@src.test", [f"r{burst}-{n}@d.test"], b"Subject: x\r\n\r\nx\r\n")
        count += each
        wait_until(lambda: server.messages >= count, 60, f"{count} messages (have {server.messages})")


@pytest.mark.parametrize("total", [1, 3, 7])
def test_a_provider_never_sees_more_than_its_number_over_sources_and_processes(tmp_path, total):
    with Counting() as server:
        p = relay(tmp_path, server, f"total_connections = {total}", 6)
        try:
            send_all(p, server, 3, 60)
            print("connections", server.connections, "at a time", server.most)
            assert server.most["all"] <= total
            assert len(server.most) > 2  # several sources
        finally:
            p.stop()


def test_a_source_never_has_more_than_its_number_at_a_destination(tmp_path):
    """Few messages a connection, so that connections come and go."""
    with Counting() as server:
        p = relay(tmp_path, server, "connections = 3 start_connections = 3 messages_per_connection = 4", 2)
        try:
            send_all(p, server, 3, 60)
            print("connections", server.connections, "at a time", server.most)
            by_source = {k: v for k, v in server.most.items() if k != "all"}
            assert len(by_source) == 2 and max(by_source.values()) <= 3, by_source
        finally:
            p.stop()
