"""What the operator does to messages at awkward moments, and that nothing gets
stuck or lost by it."""
import base64
import json
import os
import socket
import tempfile
import time

import pytest

from faults import Faults
from ipc import expand, parameters
from patience import stretched
from qmgr_peers import SITE, Qmgr
from test_qmgr_delivery import NO_SUCH_USER, REFUSED
from test_qmgr_restart import again, place, wait_file  # noqa: F401 (a fixture)


STEP_MOST = 8  # seconds


class Ahead:
    """qmgr's clocks move on while a test waits for a job: what is slowed down or left alone for a
    while takes no time there. In a build without fault points it takes its time."""

    def __init__(self, directory, clocks=("mono",)):
        self.faults, self.clocks, self.seconds, self.step = Faults(directory), clocks, 0, 1
        self.wake = None  # what makes qmgr look at its clocks

    def move(self, seconds):
        self.seconds += seconds
        for clock in self.clocks:
            self.faults.shift(clock, self.seconds)
        self.wake()

    def job(self, relay):
        """The next job; None: time has gone on."""
        m = relay.receive(0.05)
        assert m is None or m.name in ("ipc_deliver", "ipc_heartbeat", "ipc_mail_forget", "ipc_connection"), m
        if m is None:
            self.move(int(self.step))
            self.step = min(STEP_MOST, self.step * 1.5)
        if m is None or m.name != "ipc_deliver":
            return None
        self.step = 1
        return m


class Control:
    """qmgr with its control socket; `ahead`: an Ahead, for waits of q.job()."""

    def __init__(self, config=None, ahead=None, **options):
        self.path = os.path.join(tempfile.mkdtemp(prefix="postern-"), "control")
        if ahead:
            options["environment"] = ahead.faults.environment
        self.q = Qmgr(config, listen=[self.path], **options)
        self.go_ahead(ahead)

    def go_ahead(self, ahead):
        self.q.ahead = ahead
        if ahead:
            ahead.wake = lambda: self.ask(request="shaping.list")

    def open(self):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.settimeout(10)
        s.connect(self.path)
        return s

    @staticmethod
    def send(s, **request):
        s.sendall(json.dumps(request).encode() + b"\n")

    @staticmethod
    def answer(s):
        lines = []
        with s.makefile("rb") as f:
            while not lines or not ("done" in lines[-1] or "error" in lines[-1]):
                lines.append(json.loads(f.readline()))
        return lines

    def ask(self, **request):
        with self.open() as s:
            self.send(s, **request)
            return self.answer(s)

    def act(self, action, *ids):
        last = self.ask(request="queue.action", action=action, select=dict(ids=list(ids)))[-1]
        assert last["changed"] == len(ids)

    def stop(self):
        self.q.stop()
        os.unlink(self.path)
        os.rmdir(os.path.dirname(self.path))


@pytest.fixture
def c():
    c = Control()
    yield c
    c.stop()


def test_message_that_ends_while_it_is_shown(c):
    """Its file stays under the reader; the descriptor is not closed twice."""
    q = c.q
    body = b"Subject: x\r\n\r\n" + b"0123456789\r\n" * 4000
    shown = 0
    clients = [c.open() for _ in range(8)]
    for i in range(100):
        if shown and i >= 20:
            break
        id = q.commit(body=body)
        if i == 0:
            q.resolved()
        job = q.job()
        for s in clients:
            c.send(s, request="message.show", id=id, content=True)
        time.sleep(i * 2e-5)  # so that the result comes before, amid and after the reads
        q.result(job)
        for s in clients:
            lines = c.answer(s)
            content = b"".join(base64.b64decode(x["content"]) for x in lines if "content" in x)
            assert content in (b"", b"Received: by test\r\n" + body)
            shown += content != b""
        q.wait_log(rf"{id}: removed")
    for s in clients:
        s.close()
    q.wait_files([])
    assert shown > 0
    assert "file is gone" not in q.log() and "another" not in q.log()


def test_room_of_a_site_given_to_a_message_that_is_held():
    """The site's room goes on to the next account's mail."""
    c = Control(dict(default_destination_concurrency_limit="1"))
    q = c.q
    q.commit(["x@other.test"])
    q.resolved()
    other = q.job()
    q.commit(account="first")
    q.resolved()
    first = q.job()
    second = q.commit(account="second")
    third = q.commit(account="third")
    q.relay.send("ipc_relay_ready", jobs=1)  # `other` takes it
    q.result(first)
    q.wait_log("status=sent")
    c.act("hold", second)
    q.relay.send("ipc_relay_ready", jobs=100)
    assert q.job().id == third.encode()
    q.result(other)
    c.act("release", second)
    c.stop()


def test_flush_of_a_message_probes_its_suspended_site():
    c = Control(dict(initial_destination_concurrency="1"))
    q = c.q
    ids = [q.commit() for _ in range(3)]
    q.resolved()
    q.result(q.job(), outcomes=REFUSED, scope=SITE, host="", address="", port=0)
    q.wait_log(rf"{ids[2]}: to=.*delivery temporarily suspended")
    assert q.relay.receive(0.2) is None
    c.act("flush", ids[1])
    q.wait_log(rf"{ids[1]}: flushed by uid ")
    assert q.job().id == ids[1].encode()
    assert q.relay.receive(0.2) is None
    c.stop()


@pytest.mark.parametrize("action,event", [
    ("hold", "held"), ("requeue", "requeued"), ("delete", "deleted"),
    ("expire", "expire_requested")])
def test_events_of_an_operator(action, event):
    c = Control(dict(event_log_file="events"), relays=0)
    q = c.q
    id = q.commit()
    q.resolved()
    c.act("hold", id)
    c.act("release", id)
    c.act(action, id)
    q.wait_log(rf"{id}: {event} by uid ")
    c.ask(request="ping")
    with open(q.master.events_path, encoding="utf-8") as f:
        events = [json.loads(line) for line in f]
    mine = [e for e in events if e["id"] == id]
    names = [e["event"] for e in mine]
    assert names[:4] == ["accepted", "held", "released", event]
    assert names[4:] == dict(delete=["removed"], expire=["expired"]).get(action, [])
    if action == "expire":
        assert mine[4]["to"] == "a@example.com" and mine[4]["from"] == "s@client.test"
    c.stop()


def test_no_connection_no_relay_in_the_log(c):
    """As Postfix: relay=none when no connection was had, the host when one was."""
    q = c.q
    refused, greeted = q.commit(), q.commit()
    q.resolved()
    q.result(q.job(), outcomes=REFUSED)
    q.result(q.job(), outcomes=dict(status=1, code=421, enhanced="4.3.2", text="4.3.2 busy",
                                    stage=2), use_count=2)
    q.wait_log(rf"{refused}: to=<a@example.com>, relay=none, delay=")
    q.wait_log(rf"{greeted}: to=<a@example.com>, relay=mx.test\[127.0.0.1\]:25, conn_use=2, delay=")


def test_F12_message_that_kills_relay_processes_waits(c):
    """Each time longer; it counts as an attempt, so that it expires one day."""
    q = c.q
    id = q.commit()
    q.resolved()
    for _ in range(3):
        q.job()
        q.relay.close()
        q.add_relay()
    q.wait_log(rf"{id}: to=<a@example.com>, relay=none, .*, dsn=4.3.0, status=deferred "
               r"\(mail system trouble: the delivery process died\)")
    assert q.relay.receive(0.3) is None
    [message] = [x for x in c.ask(request="queue.list", select=dict(all=True)) if "id" in x]
    assert message["recipients"][0]["attempts"] == 1
    assert 50 < message["next"] - time.time() <= 61


def test_F14_success_notice_survives_qmgr(place):
    """Sent is marked, but the notice that was asked for is still owed."""
    q = Qmgr(directory=place)
    id = q.commit([dict(address="a@example.com", notify=2), dict(address="b@example.com")])
    q.resolved()
    job = q.job()
    q.result(job)
    ask = q.bounce.expect("ipc_notice_request")
    assert ask.kind == 2
    wait_file(q, id, b"CS")
    q = again(q)
    ask = q.noticed()
    assert ask.kind == 2 and ask.notice_id == (id + "S0").encode()
    assert [r.address for r in ask.recipients] == [b"a@example.com"]
    q.wait_log(rf"{id}: removed")
    q.resolved()
    assert q.job().id == (id + "S0").encode()
    assert q.relay.receive(0.2) is None
    q.stop()


def test_F22_failed_notice_does_not_hide_the_next_failure(c):
    """A bounce process that is away costs nobody a notice."""
    q = c.q
    id = q.commit(["a@example.com", "b@other.test"])
    q.resolved()
    q.resolved()
    jobs = [q.job(), q.job()]
    q.bounce.close()
    q.result(jobs[0], outcomes=NO_SUCH_USER)
    q.result(jobs[1], outcomes=NO_SUCH_USER)
    q.bounce = q.master.peer("bounce")
    ask = q.noticed()
    assert [r.address for r in ask.recipients] == [b"a@example.com", b"b@other.test"]
    q.wait_log(rf"{id}: removed")


def test_reload_looks_destinations_up_anew(c):
    """A new relayhost holds for domains that are known already, and soon."""
    q = c.q
    q.commit()
    q.resolved(ttl=86400)
    q.result(q.job())
    fd = os.memfd_create("config")
    values = expand({**parameters(), "myhostname": "relay.test", "mydomain": "test",
                     "maillog_file": q.master.log_path, "queue_minfree": "0",
                     "queue_minfree_inodes": "0"})
    os.write(fd, "".join(f"{k} = {v}\n" for k, v in values.items()).encode())
    os.lseek(fd, 0, os.SEEK_SET)
    q.master.master.send("ipc_config", fd, generation=2)
    os.close(fd)
    began = time.monotonic()
    while True:
        assert time.monotonic() - began < stretched(10)
        q.commit()
        ask = q.resolve.receive(0.2)
        if ask:
            break
        q.result(q.job())
    assert ask.recipient == b"a@example.com"
