"""relay: what goes wrong at our own end: qmgr, files, descriptors; and how it stops."""
import os

import pytest
from ipc import Closed
from postern import wait_until
from relay_rig import (CONTENT, DEFERRED, RECIPIENT, SENT, Relay, Script, content_file, only,
                       plain, statuses)


def test_qmgr_gone_drops_jobs_and_the_next_one_is_served():
    seen = []

    def handler(c):
        c.hello()
        c.expect("MAIL")
        seen.append("MAIL")
        try:
            c.line()
        finally:
            seen.append("closed")
    with Script(handler, plain()) as server, Relay() as relay:
        relay.deliver(server, ["r@dst.test"])
        wait_until(lambda: "MAIL" in seen, 10, "MAIL")
        relay.qmgr.close()
        wait_until(lambda: "closed" in seen, 10, "the end of the session")
        relay.connect_qmgr()
        relay.deliver(server, ["r@dst.test"])
        assert statuses(relay.result()) == [SENT]
        relay.master.wait_log("qmgr: .*1 deliveries are dropped")


def test_B89_malformed_job_closes_the_channel_only():
    with Script(plain()) as server, Relay() as relay:
        relay.qmgr.send("ipc_deliver", job=1, recipients=[], targets=[], body=b"x", body_len=1)
        with pytest.raises(Closed):
            relay.qmgr.receive()
        relay.connect_qmgr()
        relay.qmgr.send("ipc_commit", tag=1)
        with pytest.raises(Closed):
            relay.qmgr.receive()
        relay.connect_qmgr()
        relay.deliver(server, ["r@dst.test"])
        assert statuses(relay.result()) == [SENT]


def test_B89_without_qmgr_the_process_ends_and_makes_room_for_another():
    """Both live on when qmgr closes the channel: nobody would bring them together."""
    with Relay() as relay:
        relay.qmgr.sock.close()
        assert relay.master.process.wait(40) == 0
        relay.master.wait_log("error: no channel to qmgr")


@pytest.mark.parametrize("keywords", [(), ("CHUNKING",)])
def test_F25_file_shorter_than_it_should_be(keywords):
    fd = content_file(b"x" * 1000)
    with Script(plain(*keywords)) as server, Relay() as relay:
        relay.deliver(server, ["r@dst.test"], fd=fd, body_len=2000)
        os.close(fd)
        result = relay.result()
        outcome = only(result)
        assert (outcome.status, outcome.enhanced) == (DEFERRED, b"4.3.0")
        assert result.scope == RECIPIENT and result.after_dot == 0
        relay.master.wait_log("error: .*cannot be read")


def test_F28_out_of_descriptors():
    limit = ("prlimit", "--nofile=48:48")
    user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    held = []

    def handler(c):
        c.send("220 peer")
        c.expect("EHLO")
        wait_until(lambda: held, 20, "the results")
        c.send("450 go")
    with Script(handler) as server, \
            Relay(wrapper=limit + user if os.getuid() == 0 else limit) as relay:
        for _ in range(60):
            relay.deliver([server], ["r@dst.test"])
        early = [relay.result() for _ in range(15)]
        held.append(True)
        late = [relay.result() for _ in range(45)]
        assert all(statuses(r) == [DEFERRED] for r in early + late)
        assert any(b"Too many open files" in r.outcomes[0].text for r in early)
        relay.master.wait_log("warning: cannot make a socket")


def test_F28_idle_connections_leave_descriptors_for_jobs():
    """Without one for a large message's content the channel to qmgr would be lost."""
    limit = ("prlimit", "--nofile=94:94")  # for 10 jobs
    with Script(plain()) as server, \
            Relay(wrapper=limit, smtp_connection_cache_time_limit="100s") as relay:
        assert relay.ready.jobs == 10
        for i in range(120):
            relay.deliver(server, ["r@dst.test"], site=f"site{i}.test")
            assert statuses(relay.result()) == [SENT]
        fd = content_file(CONTENT)
        for i in range(10):
            relay.deliver(server, ["r@dst.test"], site=f"large{i}.test", fd=fd,
                          body_len=len(CONTENT))
        os.close(fd)
        assert all(statuses(relay.result()) == [SENT] for _ in range(10))
        relay.master.master.send("ipc_drain", seconds=20)


def test_drain_finishes_what_is_under_way():
    def handler(c):
        c.hello()
        c.expect("MAIL")
        seen.append("MAIL")
        wait_until(lambda: "drain" in seen, 10, "the drain")
        c.send("250 ok")
        c.expect("RCPT")
        c.send("250 ok")
        c.expect("DATA")
        c.send("354 go")
        c.until_dot()
        c.send("250 ok")
        c.expect("QUIT")
    seen = []
    with Script(handler) as server, Relay(smtp_connection_cache_time_limit="20s") as relay:
        relay.deliver(server, ["r@dst.test"])
        wait_until(lambda: seen, 10, "MAIL")
        relay.master.master.send("ipc_drain", seconds=20)
        assert relay.qmgr.expect("ipc_relay_ready").jobs == 0
        seen.append("drain")
        assert statuses(relay.result()) == [SENT]
        assert relay.master.process.wait(20) == 0
