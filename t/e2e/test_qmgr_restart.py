"""What qmgr knows again after it was killed."""
import glob
import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest

from postern import wait_until
from qmgr_peers import SENT, TARGET, Qmgr, checksum, new_id
from test_qmgr_delivery import GREYLISTED, NO_SUCH_USER


@pytest.fixture
def place():
    d = tempfile.mkdtemp(prefix="postern-")
    yield d
    shutil.rmtree(d, ignore_errors=True)


def copy_spool(place, to):
    shutil.copytree(place + "/spool", to + "/spool")
    for path in pathlib.Path(place).glob("spool/new/*/*"):
        copy = f"{to}/spool/new/{path.parent.name}/{path.name}"
        os.chown(copy, path.stat().st_uid, path.stat().st_gid)


def wait_file(q, id, content):
    """Awaits that the message's file has these bytes."""
    [path] = glob.glob(f"{q.directory}/spool/new/*/{id}")

    def there():
        with open(path, "rb") as f:
            return content in f.read()
    wait_until(there, what=f"{content!r} in {path}")


def again(q, config=None):
    """Kills qmgr and starts another one in the same place."""
    q.kill()
    for s in q.master.listeners:
        s.close()
    fresh = Qmgr(config, directory=q.directory)
    return fresh


def test_F07_accepted_mail_is_found(place):
    q = Qmgr(directory=place)
    ids = [q.commit([f"u{i}@example.com"], body=b"body %d\r\n" % i) for i in range(20)]
    q = again(q)
    q.resolved()
    seen = {}
    while len(seen) < 20:
        job = q.job()
        seen[job.id.decode()] = (job.recipients[0].address, job.body, job.prefix)
        q.result(job)
    assert seen == {id: (b"u%d@example.com" % i, b"body %d\r\n" % i, b"Received: by test\r\n")
                    for i, id in enumerate(ids)}
    q.stop()


def test_F08_handed_out_and_not_reported_is_sent_again(place):
    q = Qmgr(directory=place)
    id = q.commit()
    q.resolved()
    q.job()
    q = again(q)
    q.resolved()
    assert q.job().id == id.encode()
    q.stop()


def test_delivered_recipients_are_not_sent_again(place):
    q = Qmgr(directory=place)
    id = q.commit(["a@example.com", "b@example.com"])
    q.resolved()
    q.result(q.job(), outcomes=[dict(index=0, status=SENT, code=250), dict(GREYLISTED, index=1)])
    wait_file(q, id, b"SP")  # the status bytes
    q = again(q, dict(minimal_backoff_time="1", maximal_backoff_time="1"))
    q.resolved()
    job = q.job()
    assert [(r.index, r.address) for r in job.recipients] == [(1, b"b@example.com")]
    q.stop()


def test_attempts_and_schedule_survive(place):
    q = Qmgr(directory=place)
    id = q.commit()
    q.resolved()
    q.result(q.job(), outcomes=GREYLISTED)
    wait_file(q, id, b"greylisted")  # the record
    q = again(q)
    q.wait_log("spool read: 1 messages")
    assert q.resolve.receive(0.5) is None  # not due yet
    q.wait_files([id])
    q.stop()


def test_F09_failure_recorded_notice_not_made(place):
    q = Qmgr(directory=place)
    id = q.commit()
    q.resolved()
    q.result(q.job(), outcomes=NO_SUCH_USER)
    q.bounce.expect("ipc_notice_request")  # only asked when the failure is durable
    q = again(q)
    ask = q.noticed()
    assert ask.notice_id == (id + "F0").encode()
    assert ask.recipients[0].diagnostic == b"550 5.1.1 no such user"
    assert ask.content.endswith(b"Hello\r\n")
    q.resolved()
    assert q.job().id == (id + "F0").encode()
    assert q.resolve.receive(0.2) is None and q.relay.receive(0.2) is None
    q.stop()


def unmarked_original(place, fillers=0):
    """A spool in which a message and its notice are both, as if qmgr had died
    between the two; and messages that wait. Their IDs."""
    q = Qmgr(directory=place)
    waiting = []
    for _ in range(fillers):
        waiting.append(q.commit(["late@late.test"]))
        if len(waiting) == 1:
            q.resolved()
        q.result(q.job(), outcomes=GREYLISTED)
    id = q.commit()
    kept = tempfile.mkdtemp(prefix="postern-")
    q.resolved()
    q.result(q.job(), outcomes=NO_SUCH_USER)
    q.bounce.expect("ipc_notice_request")
    copy_spool(place, kept)  # with the failure, before the notice
    q = again(q)
    q.noticed()
    q.wait_files([id + "F0", *waiting])
    q.kill()
    [path] = pathlib.Path(kept).glob(f"spool/new/*/{id}")
    back = f"{place}/spool/new/{path.parent.name}/{id}"
    shutil.copy2(path, back)
    os.chown(back, path.stat().st_uid, path.stat().st_gid)
    shutil.rmtree(kept)
    assert sorted([id, id + "F0", *waiting]) == Qmgr.files(q)
    return id, waiting


@pytest.mark.parametrize("fillers,config", [(0, {}), (8, {"qmgr_message_active_limit": "1"})])
def test_F10_notice_made_original_not_finished(place, fillers, config):
    """One notice goes out, also when the original does not fit into memory."""
    id, waiting = unmarked_original(place, fillers)
    q = Qmgr(config, directory=place)
    q.wait_log(rf"{id}: sender non-delivery notification: {id}F0")
    q.wait_log(f"{id}: removed")
    q.resolved()
    job = q.job()
    assert job.id == (id + "F0").encode()
    q.result(job)
    q.wait_files(waiting)
    assert q.bounce.receive(0.3) is None and q.relay.receive(0.1) is None
    q.stop()


def test_what_waits_leaves_room_for_what_is_due(place):
    """A queue of messages that are not due, longer than memory, and then new mail."""
    config = dict(qmgr_message_active_limit="4")
    q = Qmgr(directory=place)
    for i in range(12):
        last = q.commit(["late@late.test"])
        if i == 0:
            q.resolved()
        q.result(q.job(), outcomes=GREYLISTED)
    wait_file(q, last, b"greylisted")
    q = again(q, config)
    q.wait_log("spool read: 12 messages")
    ids = {q.commit(["a@now.test"]) for _ in range(6)}
    q.resolved()
    got = set()
    while got != ids:
        job = q.job()
        got.add(job.id.decode())
        q.result(job)
    q.stop()


def test_more_than_fits_into_memory(place):
    """Stubs: 200 messages with room for 10 envelopes; all are delivered, in the
    end and after a restart."""
    config = dict(qmgr_message_active_limit="10", qmgr_body_memory_limit="1000")
    q = Qmgr(config, directory=place)
    ids = {q.commit([f"u{i}@example.com"]) for i in range(200)}
    q = again(q, config)
    more = {q.commit([f"v{i}@example.com"]) for i in range(200)}
    q.resolved()
    got = set()
    while got != ids | more:
        job = q.job()
        assert job.id.decode() not in got
        assert job.body.endswith(b"Hello\r\n")
        got.add(job.id.decode())
        q.result(job)
    q.wait_files([])
    q.stop()


def test_large_message_after_a_restart(place):
    q = Qmgr(directory=place)
    id = new_id()
    body = b"0123456789abcdef\r\n" * 20000
    q.smtpd.send("ipc_large_open", tag=900, id=id)
    fd = q.smtpd.expect("ipc_large_fd").fd
    os.write(fd, body)
    os.close(fd)
    q.commit(id=id, tag=900, body=b"", large_len=len(body), large_sum=checksum(body))
    q = again(q)
    q.resolved()
    job = q.job()
    assert job.prefix == b"Received: by test\r\n"
    assert os.pread(job.fd, job.body_len, job.body_at) == body
    os.close(job.fd)
    q.stop()


def test_B77_content_damaged_on_disk(place):
    q = Qmgr(dict(qmgr_body_memory_limit="0"), directory=place)
    id = q.commit(["a@nowhere.test"])
    [path] = glob.glob(f"{place}/spool/new/*/{id}")
    with open(path, "r+b") as f:
        data = f.read()
        f.seek(data.index(b"Hello"))
        f.write(b"J")
    q.resolved()
    q.wait_log(rf"{id}: removed")
    q.wait_files([])
    assert len(glob.glob(f"{place}/spool/corrupt/*")) == 1
    assert q.bounce.receive(0.2) is None and q.relay.receive(0.2) is None
    q.commit()
    q.resolved()
    q.job()
    q.stop()


def test_F25_unreadable_content_is_deferred_not_bounced(place):
    q = Qmgr(dict(qmgr_body_memory_limit="0"), directory=place)
    id = q.commit()
    [path] = glob.glob(f"{place}/spool/new/*/{id}")
    q = again(q, dict(qmgr_body_memory_limit="0"))
    q.wait_log("spool read: 1 messages")
    ask = q.resolve.expect("ipc_resolve_request")
    os.rename(path, place + "/away")
    q.resolve.send("ipc_resolve_reply", tag=ask.tag, ttl=300, site="s", targets=[TARGET])
    q.wait_log(rf"error: {id}: content cannot be read, tried again later")
    q.wait_log(rf"{id}: to=<a@example.com>, relay=none, .*dsn=4.3.0, status=deferred")
    assert q.bounce.receive(0.2) is None
    os.rename(place + "/away", path)
    q.stop()


@pytest.mark.skipif(os.getuid() != 0, reason="mounts a small file system")
def test_F22_no_room_for_a_notice(place):
    os.mkdir(place + "/spool")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=777", "tmpfs", place + "/spool"],
                   check=True)
    try:
        q = Qmgr(directory=place)
        id = q.commit()
        q.resolved()
        job = q.job()
        with open(place + "/spool/filler", "wb") as f:
            with pytest.raises(OSError):
                while True:
                    os.write(f.fileno(), b"x" * 4096)
        q.result(job, outcomes=NO_SUCH_USER)
        # the record lies in the message's own block; the notice finds no room
        q.noticed(content=b"From: <>\r\n\r\n" + b"sorry\r\n" * 4000)
        q.wait_log(rf"error: {id}: notice {id}F0 could not be stored, made again in 60s")
        assert id in q.files()
        assert q.count(rf"{id}: removed") == 0
        q.stop()
    finally:
        subprocess.run(["umount", "-l", place + "/spool"], check=True)
