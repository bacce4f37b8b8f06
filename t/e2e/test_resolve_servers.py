"""transport_maps by tables that are servers: good ones, slow, dead and mad ones."""
import threading
import time

import pytest

from ipc import Broker
from patience import stretched
from postern import Postern, free_port, wait_until
from sink import Sink
from table_servers import CLOSE, SILENT, Later, Socketmap, TcpTable
from test_resolve_dns import dns, refused, start  # noqa: F401
from test_resolve_route import where

ROUTE = "smtp:[127.0.0.41]:2525"


@pytest.fixture(params=["tcp", "inet", "unix"])
def table(request, place):
    made = TcpTable() if request.param == "tcp" else \
        Socketmap() if request.param == "inet" else Socketmap(address=f"{place}/socketmap")
    yield made
    made.close()


@pytest.fixture
def resolve(start, table):
    r = start(transport_maps=table.spec, relayhost="[127.0.0.61]", lookup_table_timeout="1")
    r.broker = Broker(r.master, {table.where: table.address})
    return r


def test_found_and_not_found(resolve, table):
    table.values.update({"user@a.test": ROUTE, "b.test": ROUTE, "bad@b.test": "error:5.7.1 go away",
                         "p%q+ü@a.test": ROUTE})
    assert where(resolve.ask("User@A.test")) == ["127.0.0.41:2525"]
    reply = resolve.ask("user@b.test")
    assert where(reply) == ["127.0.0.61:25"] and reply.scope == 1
    refused(resolve.ask("bad@b.test"), 550, "5.7.1")
    assert where(resolve.ask("p%q+ü@a.test".encode())) == ["127.0.0.41:2525"]
    # the whole address only, no parts of it; one connection for all
    assert table.keys == ["user@a.test", "user@b.test", "bad@b.test", "p%q+ü@a.test"]
    assert table.connections == 1


def test_order_with_other_tables(start, table):
    table.values.update({"a@x.test": "smtp:[127.0.0.42]", "b@x.test": "smtp:[127.0.0.42]",
                         "c@x.test": ":"})
    r = start(transport_maps=f"inline:{{ a@x.test=smtp:[127.0.0.43] }} {table.spec} "
              "inline:{ x.test=smtp:[127.0.0.44] }", relayhost="[127.0.0.61]")
    r.broker = Broker(r.master, {table.where: table.address})
    assert where(r.ask("a@x.test")) == ["127.0.0.43:25"]
    assert where(r.ask("b@x.test")) == ["127.0.0.42:25"]
    assert where(r.ask("c@x.test")) == ["127.0.0.61:25"]
    assert where(r.ask("d@x.test")) == ["127.0.0.44:25"]
    assert table.keys == ["b@x.test", "c@x.test", "d@x.test"]


def test_many_at_a_time_and_never_more_connections_than_allowed(resolve, table):
    table.answer = lambda key: f"smtp:[127.0.0.41]:{key.split('@')[0]}"
    tags = {resolve.send(f"{n}@a.test"): n for n in range(1000, 1500)}
    for _ in range(len(tags)):
        reply = resolve.qmgr.expect("ipc_resolve_reply")
        assert where(reply) == [f"127.0.0.41:{tags.pop(reply.tag)}"]
    assert not tags and table.connections <= 8


def test_it_says_later(resolve, table):
    def answer(key):
        raise Later("reindexing\x1b[2J")
    table.answer = answer
    refused(resolve.ask("u@a.test"), 451, "4.3.0")
    resolve.master.wait_log(r"warning: transport_maps: .*: it says: reindexing\\x1b\[2J; mail waits")
    table.answer = lambda key: ROUTE
    assert where(resolve.ask("v@a.test")) == ["127.0.0.41:2525"]


GARBAGE = [b"HTTP/1.1 200 OK\r\n\r\n", b"\0" * 5000, b"x" * 200000]
TCP_GARBAGE = [b"\n", b"2000 x\n", b"200x\n", b"200 %zz\n", b"600 x\n"]
SOCKETMAP_GARBAGE = [b"01:x,", b"7:NO IDEA,", b"999999999:x,", b"4:OK xx,", b":,", b"0:,"]


def test_garbage(start, table):
    """Malformed, oversize: never a route, never silence."""
    own = TCP_GARBAGE if isinstance(table, TcpTable) else SOCKETMAP_GARBAGE
    r = start(transport_maps=table.spec, relayhost="[127.0.0.61]", lookup_table_timeout="1")
    r.broker = Broker(r.master, {table.where: table.address})
    for garbage in GARBAGE + own:
        table.answer = lambda key, garbage=garbage: garbage
        begin = time.monotonic()
        refused(r.ask("u@a.test"), 451, "4.3.0")
        assert time.monotonic() - begin < stretched(5)
        table.answer = lambda key: ROUTE
        wait_until(lambda: r.ask("v@a.test").code == 0, 10, "a table that is asked again")


def test_value_longer_than_a_next_hop_can_be(resolve, table):
    table.answer = lambda key: "smtp:" + "x" * 3000
    refused(resolve.ask("u@a.test"), 451, "4.3.5")


def test_slow_in_time(resolve, table):
    """The answer comes after those to later questions."""
    asked, go_on = threading.Event(), threading.Event()

    def answer(key):
        if key.startswith("slow"):
            asked.set()
            assert go_on.wait(20)
        return ROUTE
    table.answer = answer
    slow = resolve.send("slow@a.test")
    assert asked.wait(20)
    assert where(resolve.ask("u@a.test")) == ["127.0.0.41:2525"]
    go_on.set()
    reply = resolve.qmgr.expect("ipc_resolve_reply")
    assert reply.tag == slow and where(reply) == ["127.0.0.41:2525"]


def test_silent_and_others_go_on(resolve, table):
    """A question without an answer holds up nobody who can be answered."""
    table.answer = lambda key: SILENT if key.startswith("slow") else ROUTE
    slow = resolve.send("slow@a.test")
    for n in range(20):
        assert where(resolve.ask(f"u{n}@a.test")) == ["127.0.0.41:2525"]
    reply = resolve.qmgr.expect("ipc_resolve_reply")
    assert reply.tag == slow
    refused(reply, 451, "4.3.0")
    assert where(resolve.ask("v@a.test")) == ["127.0.0.41:2525"]


def test_dead_backs_off_and_comes_back(resolve, table):
    """While a table is down mail is deferred, at once, without a storm of
    connections; it is used again when it is back."""
    table.close()
    refused(resolve.ask("u@a.test"), 451, "4.3.0")
    resolve.master.wait_log("warning: transport_maps: .*(refused|No such|not exist)")
    tried = len(resolve.broker.asked)
    begin = time.monotonic()
    for n in range(100):
        refused(resolve.ask(f"u{n}@a.test"), 451, "4.3.0")
    assert time.monotonic() - begin < stretched(1)
    assert len(resolve.broker.asked) <= tried + 2
    table.listen()
    table.values["u@a.test"] = ROUTE
    wait_until(lambda: resolve.ask("u@a.test").code == 0, 10, "a table that is asked again")


def test_a_connection_that_went_stale_costs_nothing(resolve, table):
    table.answer = lambda key: ROUTE
    assert where(resolve.ask("u@a.test")) == ["127.0.0.41:2525"]
    table.hang_up()
    assert where(resolve.ask("v@a.test")) == ["127.0.0.41:2525"]


def test_closes_without_an_answer(resolve, table):
    table.answer = lambda key: CLOSE
    refused(resolve.ask("u@a.test"), 451, "4.3.0")


def test_reload_while_a_question_is_open(resolve, table):
    """The question is asked again of the new tables: nothing is lost, nothing twice."""
    table.answer = lambda key: SILENT
    tag = resolve.send("u@a.test")
    wait_until(lambda: table.keys, 10, "the question")
    resolve.reload(transport_maps="inline:{ a.test=smtp:[127.0.0.49] }")
    reply = resolve.qmgr.expect("ipc_resolve_reply")
    assert reply.tag == tag and where(reply) == ["127.0.0.49:25"]
    assert resolve.qmgr.receive(0.2) is None


# ---- the whole relay -----------------------------------------------------------------------

@pytest.fixture
def sink():
    s = Sink()
    yield s
    s.stop()


def test_whole_relay(place, table, sink):
    table.values.update(dict.fromkeys(["b@dst.test", "c@dst.test"],
                                      f"smtp:[127.0.0.1]:{sink.port}"))
    with Postern(f"{place}/p", transport_maps=table.spec, minimal_backoff_time="1s",
                 relayhost=f"[127.0.0.1]:{free_port()}") as p:
        p.send("a@src.test", ["b@dst.test"], b"Subject: x\r\n\r\nbody\r\n")
        sink.wait(1)
        table.close()
        queue_id = p.send("a@src.test", ["c@dst.test"], b"Subject: y\r\n\r\nbody\r\n")
        p.wait_log(rf"{queue_id}: to=<c@dst.test>.*status=deferred .*lookup table")
        table.listen()
        # the failed answer is kept for a while; a requeue asks anew
        wait_until(lambda: p.ctl("queue", "requeue", "--all") and len(sink.messages) == 2, 30,
                   "the second message")
        # a table that nobody configured cannot be reached: master says so by refusing
        assert "it is not in the configuration" not in p.log()


@pytest.mark.parametrize("spec", ["tcp:example.com:1", "tcp:25", "socketmap:inet:127.0.0.1:1",
                                  "socketmap:unix:/x:", "socketmap:tcp:127.0.0.1:1:n"])
def test_a_wrong_name_refuses_to_start(place, spec):
    p = Postern(f"{place}/p", start=False, transport_maps=spec)
    with pytest.raises(AssertionError):
        p.start(10)
    assert "transport_maps" in p.stderr() and "numeric address" in p.stderr()
