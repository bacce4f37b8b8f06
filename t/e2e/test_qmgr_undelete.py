"""Deleted messages: kept for a while, brought back exactly, never in the way."""
import json
import os
import socket
import subprocess

import pytest

from postern import pause, wait_until
from qmgr_peers import Qmgr
from test_qmgr_delivery import GREYLISTED, NO_SUCH_USER
from test_qmgr_operator import Control
from test_qmgr_restart import place, wait_file  # noqa: F401 (a fixture)

# about the recipient: no reason to slow the site down
LATER = dict(GREYLISTED, enhanced="4.2.2", text="4.2.2 mailbox full")




HOLD = 32  # enum message_flag


@pytest.fixture
def c():
    # a site that says 450 to everybody is slowed down, here for moments only
    c = Control(dict(shaping_time_divisor="1000"))
    yield c
    c.stop()


def listed(c, deleted=False):
    lines = c.ask(request="queue.list", select=dict(all=True, deleted=deleted))
    return {l["id"]: l for l in lines if "id" in l}


def undelete(c, *ids):
    c.act("undelete", *ids)


def restart(c, config=None):
    """Kills qmgr and starts another one on its spool, with its control socket."""
    old = c.q
    old.kill()
    for s in old.master.listeners:
        s.close()
    os.unlink(c.path)
    c.q = Qmgr(config, directory=old.directory, listen=[c.path])
    c.q.own_directory = old.own_directory
    wait_until(lambda: not c.ask(request="status")[0]["scanning"], 10, "the end of the scan")
    return c.q


def test_deleted_is_out_of_the_queue_and_comes_back(c):
    q = c.q
    id = q.commit()
    q.resolved()
    q.result(q.job(), outcomes=GREYLISTED)
    q.wait_log(rf"{id}: to=.*status=deferred")
    c.act("delete", id)
    assert listed(c) == {}
    kept = listed(c, deleted=True)[id]
    assert kept["status"] == "deleted" and 86000 < kept["kept_until"] - kept["arrival"] < 87000
    assert kept["recipients"][0]["attempts"] == 1 and "4.2.0" in kept["recipients"][0]["reply"]
    figures = c.ask(request="status")[0]
    assert (figures["messages"], figures["deleted"]) == (0, 1)
    # what is not in the queue cannot be acted on as if it were
    last = c.ask(request="queue.action", action="hold", select=dict(ids=[id]))[-1]
    assert (last["changed"], last["missing"]) == (0, 1)
    assert q.count(rf"{id}: removed$") == 1 and q.files() == [id]
    undelete(c, id)
    assert listed(c, deleted=True) == {} and id in listed(c)
    q.wait_log(rf"{id}: undeleted by uid ")
    assert listed(c)[id]["next"] > kept["arrival"] + 200  # its schedule is as it was
    c.act("flush", id)
    q.result(q.job())
    q.wait_files([])
    assert c.ask(request="queue.action", action="undelete", select=dict(ids=[id]))[-1]["missing"] == 1


def test_a_hold_is_still_one_afterwards(c):
    q = c.q
    id = q.commit()
    q.resolved()
    q.result(q.job(), outcomes=GREYLISTED)
    q.wait_log("status=deferred")
    c.act("hold", id)
    c.act("delete", id)
    assert c.ask(request="status")[0]["held"] == 0
    undelete(c, id)
    assert listed(c)[id]["status"] == "hold" and c.ask(request="status")[0]["held"] == 1
    assert q.relay.receive(0.2) is None
    c.act("release", id)
    q.result(q.job())


def test_a_restart_changes_nothing(c):
    q = c.q
    id = q.commit(["a@example.com", "b@example.com"])
    q.resolved()
    job = q.job()
    sent = dict(status=0, code=250, enhanced="2.0.0", text="2.0.0 Ok", stage=9, index=0)
    q.result(job, outcomes=[sent, dict(GREYLISTED, index=1)])
    q.wait_log(rf"{id}: to=<b@.*status=deferred")
    wait_file(q, id, b"greylisted")
    before = content_of(q, id)
    gone = q.commit(["c@example.com"])
    q.job()
    c.act("delete", id)
    until = listed(c, deleted=True)[id]["kept_until"]
    wait_until(lambda: content_of(q, id) != before, 10, "the record of it")
    q = restart(c)
    kept = listed(c, deleted=True)[id]
    assert abs(kept["kept_until"] - until) < 2
    assert [r["address"] for r in kept["recipients"]] == ["b@example.com"]
    q.resolved()  # of the other message, which is as it was
    assert q.job().id == gone.encode()
    undelete(c, id)
    c.act("flush", id)
    again = q.job()
    assert [r.address for r in again.recipients] == [b"b@example.com"]
    q.result(again)
    q.wait_log(rf"{id}: removed$")


@pytest.mark.parametrize("outcome,word", [
    (None, "sent"), (GREYLISTED, "deferred"), (NO_SUCH_USER, "bounced")])
def test_recipient_in_delivery(c, outcome, word):
    """What a relay has is marked by its result; who got the mail gets no second one,
    and nobody is told of a failure unless the message comes back."""
    q = c.q
    id = q.commit()
    q.resolved()
    job = q.job()
    c.act("delete", id)
    assert listed(c) == {} and list(listed(c, deleted=True)) == [id]
    q.result(job, outcomes=outcome)
    q.wait_log(rf"{id}: to=.*status={word}")
    if word == "sent":
        q.wait_files([])
        assert listed(c, deleted=True) == {}
        assert q.count(rf"{id}: removed$") == 1
        return
    q.wait_log(rf"{id}: removed$")
    assert q.bounce.receive(0.2) is None and q.relay.receive(0) is None
    undelete(c, id)
    if word == "deferred":
        assert listed(c)[id]["recipients"][0]["attempts"] == 1
        c.act("flush", id)
        q.result(q.job())
    else:
        ask = q.noticed()
        assert [r.address for r in ask.recipients] == [b"a@example.com"]
        q.resolved()
        assert q.job().id == id.encode() + b"F0"
        q.wait_files([id + "F0"])


def test_delete_of_what_a_relay_has_survives_a_crash(c):
    q = c.q
    id = q.commit()
    q.resolved()
    q.job()
    before = content_of(q, id)
    c.act("delete", id)
    wait_until(lambda: content_of(q, id) != before, 10, "the record of it")
    q = restart(c)
    assert list(listed(c, deleted=True)) == [id] and listed(c) == {}
    assert q.resolve.receive(0.3) is None and q.relay.receive(0) is None
    undelete(c, id)
    q.resolved()
    assert q.job().id == id.encode()


def content_of(q, id):
    [path] = [os.path.join(d, n) for d, _, names in os.walk(q.directory + "/spool/new")
              for n in names if n == id]
    with open(path, "rb") as f:
        return f.read()


def test_relay_dies_with_a_deleted_message(c):
    q = c.q
    id = q.commit()
    q.resolved()
    q.job()
    c.act("delete", id)
    q.relays.pop().close()
    q.wait_log(rf"{id}: removed$")
    q.add_relay(slot=1)
    assert q.relay.receive(0.2) is None
    undelete(c, id)
    assert q.job().id == id.encode()


def test_time_is_over():
    c = Control(dict(queue_undelete_time="1"))
    q = c.q
    id = q.commit()
    q.resolved()
    q.result(q.job(), outcomes=GREYLISTED)
    q.wait_log("status=deferred")
    c.act("delete", id)
    q.wait_log(rf"{id}: purged, it had been deleted")
    q.wait_files([])
    assert listed(c, deleted=True) == {}
    c.stop()


def test_no_time_to_keep():
    c = Control(dict(queue_undelete_time="0"))
    q = c.q
    first, second = q.commit(), q.commit()
    q.resolved()
    jobs = [q.job(), q.job()]
    c.act("delete", second)  # at a relay: waits for its result
    q.result(next(j for j in jobs if j.id == second.encode()), outcomes=NO_SUCH_USER)
    q.wait_files([first])
    q.result(next(j for j in jobs if j.id == first.encode()), outcomes=GREYLISTED)
    q.wait_log(rf"{first}: to=.*status=deferred")
    c.act("delete", first)
    q.wait_files([])
    assert listed(c, deleted=True) == {} and q.count("purged") == 0
    assert q.count(rf"{first}: removed$") == q.count(rf"{second}: removed$") == 1
    assert q.bounce.receive(0.2) is None
    c.stop()


def test_deleted_twice_is_gone_for_good(c):
    q = c.q
    ids = [q.commit() for _ in range(3)]
    q.resolved()
    for _ in ids:
        q.result(q.job(), outcomes=LATER)
    q.wait_log(rf"{ids[2]}: to=.*status=deferred")
    c.act("delete", *ids)
    last = c.ask(request="queue.action", action="delete", select=dict(ids=ids[:2], deleted=True))[-1]
    assert last["changed"] == 2
    q.wait_files(ids[2:])
    assert list(listed(c, deleted=True)) == ids[2:]
    error = c.ask(request="queue.action", action="hold", select=dict(all=True, deleted=True))[-1]
    assert "can only be undeleted" in error["error"]


def test_messages_of_the_limit_give_way():
    """Deleted ones never fill the queue: the oldest are purged for new mail."""
    c = Control(dict(qmgr_message_limit="5", qmgr_message_active_limit="2"))
    q = c.q
    ids = []
    for i in range(5):
        ids.append(q.commit())
        if i == 0:
            q.resolved()
        q.result(q.job(), outcomes=GREYLISTED)
        q.wait_log(rf"{ids[-1]}: to=.*status=deferred")
    for id in ids:
        c.act("delete", id)
    fresh = [q.commit() for _ in range(3)]
    wait_until(lambda: list(listed(c, deleted=True)) == ids[3:], 10, "room for new mail")
    assert sorted(listed(c)) == sorted(fresh)
    c.stop()


@pytest.mark.skipif(os.getuid() != 0, reason="mounts a small file system")
def test_F21_deleted_mail_gives_way_on_a_full_disk(place):
    """Twice as much as fits is taken, at 20 MB/s, and deleted: the relay never says 452."""
    os.mkdir(place + "/spool")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=777", "tmpfs", place + "/spool"],
                   check=True)
    c = Control(dict(queue_minfree=str(32 << 20), qmgr_free_files_limit="64"), directory=place)
    q = c.q
    body = b"Subject: x\r\n\r\n" + b"0123456789\r\n" * 4900
    try:
        for _ in range(100):
            pause(0.06)
            ids = [q.commit(body=body, flags=HOLD) for _ in range(20)]
            c.act("delete", *ids)
        q.wait_log("deleted messages purged before their time")
        kept, id = listed(c, deleted=True), ids[-1]
        assert 0 < len(kept) < 1000 and id in kept
        assert q.count("mail is refused") == 0
        undelete(c, id)
        assert id in listed(c)
        c.stop()
    finally:
        subprocess.run(["umount", "-l", place + "/spool"], check=True)


def test_the_list_of_many_is_in_order_of_deletion(c):
    q = c.q
    ids = [q.commit() for _ in range(300)]
    q.resolved()
    for _ in ids:
        q.result(q.job(), outcomes=LATER)
    wait_until(lambda: q.count("status=deferred") == 300, 20, "300 deferrals")
    first = ids[::2]
    c.act("delete", *first)
    c.act("delete", *[i for i in ids if i not in first])
    got = list(listed(c, deleted=True))
    assert got[:150] == first and sorted(got) == sorted(ids)
    lines = c.ask(request="queue.summary", select=dict(all=True, deleted=True))
    assert lines[-1]["messages"] == 300 and lines[-1]["deleted"] == 300
    last = c.ask(request="queue.action", action="undelete", select=dict(recipient="*"))[-1]
    assert last["changed"] == 300
    assert len(listed(c)) == 300 and listed(c, deleted=True) == {}


def test_a_client_that_stops_reading_the_list(c):
    """What it has in view comes and goes all the same."""
    q = c.q
    ids = [q.commit(sender="x" * 200 + "@src.test") for _ in range(400)]
    q.resolved()
    for _ in ids:
        q.result(q.job(), outcomes=LATER)
    wait_until(lambda: q.count("status=deferred") == 400, 20, "400 deferrals")
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    s.settimeout(10)
    s.connect(c.path)
    c.send(s, request="queue.list", select=dict(all=True))
    first = s.recv(1)
    c.act("delete", *ids[:390])
    c.act("undelete", *ids[:200])
    text = first
    while not text.endswith(b"}\n") or b'"done"' not in text.rsplit(b"\n", 2)[-2]:
        text += s.recv(65536)
    lines = [json.loads(l) for l in text.splitlines()]
    assert lines[-1]["done"] and set(ids[390:]) <= {l.get("id") for l in lines}
    assert len(listed(c)) == 210
    s.close()
