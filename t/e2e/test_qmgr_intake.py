"""What smtpd may and may not do, and what it is answered."""
import os
import time

import pytest

from ipc import Closed
from postern import wait_until
from qmgr_peers import Qmgr, checksum, new_id


@pytest.fixture
def q():
    q = Qmgr()
    yield q
    q.stop()


def closed(channel):
    with pytest.raises(Closed):
        while channel.receive() is not None:
            pass
    return True


def test_state_comes_first(q):
    assert q.state.state == 0 and q.state.commit_credit > 0 and q.state.byte_credit > 1 << 20


def test_many_commits_in_one_packet(q):
    n = 100
    for tag in range(n):
        q.commit([f"u{tag}@example.com"], answer=None)
    assert {q.smtpd.expect("ipc_committed").tag for _ in range(n)} == set(range(1, n + 1))
    assert len(q.files()) == n


def test_recipients_in_several_frames(q):
    q.smtpd.send("ipc_commit_rcpts", tag=1, recipients=[dict(address=f"a{i}@example.com") for i in range(300)])
    q.smtpd.send("ipc_commit_rcpts", tag=1, recipients=[dict(address=f"b{i}@example.com") for i in range(300)])
    id = q.commit(["c@example.com"], recipient_count=601)
    q.resolved()
    got = []
    while len(got) < 601:
        job = q.job()
        got += [r.address.decode() for r in job.recipients]
        q.result(job)
    assert got == [f"a{i}@example.com" for i in range(300)] + \
        [f"b{i}@example.com" for i in range(300)] + ["c@example.com"]
    q.wait_log(rf"{id}: from=.*nrcpt=601")


def test_id_collision_is_refused(q):
    id = q.commit()
    q.commit(id=id, answer="ipc_refused")
    assert q.answer.code == 451
    q.wait_files([id])


def test_refused_when_the_queue_is_full():
    q = Qmgr(dict(qmgr_message_limit="2"))
    q.commit()
    q.commit()
    q.commit(answer="ipc_refused")
    assert q.answer.code == 452
    q.resolved()
    q.result(q.job())
    q.wait_log("removed")
    assert q.smtpd.expect("ipc_spool_state").state == 0
    q.stop()


def test_F21_below_the_reserve_mail_is_refused():
    q = Qmgr(dict(queue_minfree="1000000000000"))
    state = q.state.state
    while state != 1:
        state = q.smtpd.expect("ipc_spool_state").state
    q.commit(answer="ipc_refused")
    assert (q.answer.code, q.answer.enhanced) == (452, b"4.3.1")
    q.stop()


@pytest.mark.parametrize("fields", [
    dict(id="../../etc/passwd"), dict(id=""), dict(id=new_id() + "F0"), dict(recipient_count=2),
    dict(recipient_count=0), dict(flags=1 << 20), dict(ret=7), dict(mail_class=9),
    dict(sender="s" * 2000), dict(account="a" * 300), dict(large_len=5), dict(body=b"x" * 100000),
    dict(recipients=[dict(address="")]), dict(recipients=[dict(address="a@b", notify=99)]),
    dict(recipients=b"\xff\xff\xff\xff"), dict(body=b"a\r\n", added=4), dict(added=1 << 63),
])
def test_B89_commits_that_break_the_rules(q, fields):
    innocent = q.master.peer("smtpd", 1)
    q.commit(answer=None, **fields)
    assert closed(q.smtpd)
    q.wait_files([])
    innocent.expect("ipc_spool_state")
    q.commit(smtpd=innocent)


def test_B91_tag_in_use(q):
    q.smtpd.send("ipc_large_open", tag=5, id=new_id())
    os.close(q.smtpd.expect("ipc_large_fd").fd)
    q.smtpd.send("ipc_large_open", tag=5, id=new_id())
    assert closed(q.smtpd)


def test_B91_commit_of_another_id(q):
    q.smtpd.send("ipc_large_open", tag=5, id=new_id())
    os.close(q.smtpd.expect("ipc_large_fd").fd)
    q.commit(tag=5, body=b"", large_len=10, answer=None)
    assert closed(q.smtpd)
    q.wait_files([])


def test_B91_commit_twice(q):
    q.smtpd.send_raw(b"".join(q_commit(q, 7) for _ in range(2)))
    assert closed(q.smtpd)


def q_commit(q, tag):
    from ipc import encode
    return encode("ipc_commit", tag=tag, id=new_id(), arrival=time.time_ns() // 1000,
                  recipient_count=1, recipients=[dict(address="a@example.com")], body=b"\r\nx\r\n")


def test_B90_descriptor_where_none_belongs(q):
    r, w = os.pipe()
    q.smtpd.send("ipc_abort", fd=r, tag=1)
    os.close(r)
    os.close(w)
    assert closed(q.smtpd)


def test_B94_more_than_the_credit(q):
    for tag in range(q.state.commit_credit + 1):
        q.smtpd.send("ipc_commit_rcpts", tag=tag, recipients=[dict(address="a@example.com")])
    assert closed(q.smtpd)
    q.wait_log("more open messages than its credit allows")


def test_large_message_given_up(q):
    id = new_id()
    q.smtpd.send("ipc_large_open", tag=1, id=id)
    fd = q.smtpd.expect("ipc_large_fd").fd
    os.write(fd, b"x" * 100000)
    os.close(fd)
    tmp = os.path.join(q.directory, "spool", "tmp")
    assert os.listdir(tmp) == [id]
    q.smtpd.send("ipc_abort", tag=1)
    q.commit()  # the next answer comes after the abort
    wait_until(lambda: q.commit() and not os.listdir(tmp), 5, "the end of its file")


def test_F02_smtpd_dies_in_mid_body(q):
    q.smtpd.send("ipc_large_open", tag=1, id=new_id())
    os.close(q.smtpd.expect("ipc_large_fd").fd)
    q.smtpd.close()
    q.smtpd = q.master.peer("smtpd", 1)
    q.smtpd.expect("ipc_spool_state")
    tmp = os.path.join(q.directory, "spool", "tmp")
    wait_until(lambda: q.commit() and not os.listdir(tmp), 5, "the end of its file")


def test_F03_smtpd_dies_after_commit(q):
    id = q.commit(answer=None)
    q.smtpd.close()
    q.resolved()
    assert q.job().id == id.encode()
    q.smtpd = q.master.peer("smtpd", 1)


def test_wrong_length_of_a_large_message(q):
    id = new_id()
    q.smtpd.send("ipc_large_open", tag=1, id=id)
    fd = q.smtpd.expect("ipc_large_fd").fd
    os.write(fd, b"x" * 1000)
    os.close(fd)
    q.commit(id=id, tag=1, body=b"", large_len=2000, large_sum=checksum(b"x" * 1000),
             answer="ipc_refused")
    q.wait_files([])
    q.commit(id=id)  # the ID is free again
