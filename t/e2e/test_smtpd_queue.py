"""smtpd between clients and qmgr: credits, refusals, who is gone when."""
import os
import socket

import pytest

from smtpd_rig import BAD, BUSY, FULL, MESSAGE, Smtpd


@pytest.mark.parametrize("state, reply", [(FULL, "452 4.3.1"), (BAD, "451 4.3.0"),
                                          (BUSY, "452 4.3.1")])
def test_F21_F24_state_of_the_spool(state, reply):
    with Smtpd() as s:
        s.qmgr.send("ipc_spool_state", state=state, commit_credit=10, byte_credit=1 << 20)
        s.await_mail(int(reply[:3]))
        with s.client() as c:
            c.expect("EHLO client.test", "250")
            c.expect("MAIL FROM:<a@src.test>", reply)
            s.wait_log(rf"NOQUEUE: reject: MAIL from unknown\[127.0.0.1\]: {reply} .*; "
                       r"proto=ESMTP helo=<client.test>$")
            s.qmgr.send("ipc_spool_state", state=0, commit_credit=10, byte_credit=1 << 20)
            s.await_mail(250)
            c.expect("MAIL FROM:<a@src.test>", "250")


def test_mail_is_refused_until_qmgr_is_there():
    with Smtpd(connect=False) as s:
        with s.client() as c:
            c.expect("EHLO client.test", "250")
            c.expect("MAIL FROM:<a@src.test>", "451 4.3.0")
            s.connect()
            c.transaction()
            s.accept(c)


def test_refused_commit():
    with Smtpd() as s, s.client() as c:
        c.transaction()
        commit = s.commit()
        s.qmgr.send("ipc_refused", tag=commit.tag, code=452, enhanced="4.3.1", text="disk full")
        assert c.reply() == (452, "4.3.1 disk full")
        s.wait_log(rf"{commit.id.decode()}: reject: END-OF-MESSAGE from unknown\[127.0.0.1\]: "
                   r"452 4.3.1 disk full; from=<a@src.test> to=<b@dst.test>")
        c.transaction()
        s.accept(c)


def test_F46_credits_hold_commits_back():
    with Smtpd(commits=2) as s:
        clients = [s.client() for _ in range(5)]
        for c in clients:
            c.transaction()
        first, second = s.commit(), s.commit()
        assert s.qmgr.receive(0.2) is None
        s.qmgr.send("ipc_committed", tag=first.tag)
        third = s.commit()
        assert s.qmgr.receive(0.2) is None
        s.qmgr.send("ipc_spool_state", state=0, commit_credit=10, byte_credit=1 << 20)
        rest = [s.commit(), s.commit()]
        for m in (second, third, *rest):
            s.qmgr.send("ipc_committed", tag=m.tag)
        for c in clients:
            assert c.reply()[0] == 250
            c.sock.close()


def test_credit_for_bytes():
    with Smtpd(size=20000) as s:
        clients = [s.client() for _ in range(3)]
        for c in clients:
            c.transaction(MESSAGE * 200)
        for _ in clients:
            m = s.commit()
            assert s.qmgr.receive(0.1) is None
            s.qmgr.send("ipc_committed", tag=m.tag)
        for c in clients:
            assert c.reply()[0] == 250
            c.sock.close()


def test_F04_qmgr_dies_with_commits_under_way():
    with Smtpd(commits=1) as s:
        clients = [s.client() for _ in range(3)]
        for c in clients:
            c.transaction()
        s.commit()
        s.qmgr.close()
        for c in clients:
            assert c.reply()[0] == 451
        clients[0].expect("MAIL FROM:<a@src.test>", "451 4.3.0")
        s.connect()
        clients[0].transaction()
        s.accept(clients[0])
        for c in clients:
            c.sock.close()


def test_qmgr_dies_while_a_large_message_is_written():
    with Smtpd() as s, s.client() as c:
        c.envelope()
        c.expect("DATA", "354")
        c.send(b"Subject: x\r\n\r\n" + (b"x" * 98 + b"\r\n") * 2000)
        opened = s.qmgr.expect("ipc_large_open")
        fd = os.memfd_create("large")
        s.qmgr.send("ipc_large_fd", fd, tag=opened.tag)
        os.close(fd)
        s.qmgr.close()
        s.wait_log("the link to qmgr is gone")
        s.connect()
        c.send(b".\r\n")
        assert c.reply()[0] == 451
        c.transaction()
        s.accept(c)


def test_a_transaction_survives_a_new_qmgr():
    with Smtpd() as s, s.client() as c:
        c.envelope()
        s.qmgr.close()
        s.connect()
        c.data(MESSAGE + b".\r\n")
        s.accept(c)


def test_B39_half_close_after_the_dot():
    with Smtpd() as s, s.client() as c:
        c.transaction()
        c.sock.shutdown(socket.SHUT_WR)
        commit = s.commit()
        s.qmgr.send("ipc_committed", tag=commit.tag)
        assert c.reply()[0] == 250
        assert c.closed()


def test_F38_client_leaves_after_the_dot():
    with Smtpd() as s:
        with s.client() as c:
            c.transaction()
        commit = s.commit()
        s.qmgr.send("ipc_committed", tag=commit.tag)
        s.wait_log(r"disconnect from unknown\[127.0.0.1\] ehlo=1 mail=1 rcpt=1 data=1 commands=4")
        assert s.qmgr.receive(0.2) is None


def test_nothing_is_left_when_the_client_leaves_before_the_dot():
    with Smtpd() as s:
        with s.client() as c:
            c.envelope()
            c.data(b"Subject: x\r\n\r\nhalf")
        s.wait_log(r"lost connection after DATA")
        assert s.qmgr.receive(0.2) is None


def test_B89_bad_frames_close_the_channel_and_nothing_else():
    with Smtpd() as s, s.client() as c:
        c.expect("EHLO client.test", "250")
        s.qmgr.send("ipc_notice", tag=1, flags=0, content=b"x")
        s.wait_log("the link to qmgr is gone: unexpected or malformed ipc_notice")
        s.connect()
        c.transaction()
        s.accept(c)


def test_answers_for_unknown_messages_are_ignored():
    with Smtpd() as s, s.client() as c:
        s.qmgr.send("ipc_committed", tag=77)
        s.qmgr.send("ipc_refused", tag=78, code=451, enhanced="4.3.0", text="x")
        fd = os.memfd_create("large")
        s.qmgr.send("ipc_large_fd", fd, tag=79)
        os.close(fd)
        c.transaction()
        s.accept(c)


def test_compatible_log_names():
    with Smtpd(compatible_log_names="yes") as s, s.client() as c:
        c.transaction()
        commit = s.accept(c)
        s.wait_log(rf" postfix/cleanup\[\d+\]: {commit.id.decode()}: message-id=<1@src.test>$")
        s.wait_log(rf" postfix/smtpd\[\d+\]: {commit.id.decode()}: client=")


def test_two_connections_do_not_share_a_reply():
    with Smtpd() as s, s.client() as a, s.client() as b:
        a.transaction(sender="a@src.test")
        first = s.commit()
        b.transaction(sender="b@src.test")
        second = s.commit()
        s.qmgr.send("ipc_committed", tag=second.tag)
        assert b.reply()[1].endswith(second.id.decode())
        s.qmgr.send("ipc_committed", tag=first.tag)
        assert a.reply()[1].endswith(first.id.decode())


def test_large_uploads_leave_credit_to_others():
    """Files that wait for slow clients do not keep small messages out."""
    with Smtpd(commits=4) as s:
        uploads = [s.client() for _ in range(3)]
        codes = []
        for c in uploads:
            c.envelope()
            c.expect("DATA", "354")
            c.send(MESSAGE + (b"x" * 98 + b"\r\n") * 2000)
        tags = [s.qmgr.expect("ipc_large_open").tag for _ in range(2)]
        with s.client() as small:
            small.transaction()
            s.accept(small)
        fd = os.memfd_create("large")
        for tag in tags:
            s.qmgr.send("ipc_large_fd", fd, tag=tag)
        os.close(fd)
        for c in uploads:
            c.send(b".\r\n")
        for _ in tags:
            s.qmgr.send("ipc_committed", tag=s.commit().tag)
        codes = sorted(c.reply()[0] for c in uploads)
        assert codes == [250, 250, 452]
        for c in uploads:
            c.sock.close()


def test_F27_no_descriptors_left():
    """Accepting pauses without spinning, and goes on."""
    with Smtpd(wrapper=("prlimit", "--nofile=40:40")) as s:
        clients = [s.client(greet=False) for _ in range(60)]
        s.wait_log("cannot accept connections: Too many open files")
        with open(f"/proc/{s.master.process.pid}/stat", encoding="ascii") as f:
            before = sum(map(int, f.read().split()[13:15]))
        for c in clients[:20]:
            assert c.reply()[0] == 220
            c.sock.close()
        for c in clients[20:40]:
            assert c.reply()[0] == 220
        with open(f"/proc/{s.master.process.pid}/stat", encoding="ascii") as f:
            assert sum(map(int, f.read().split()[13:15])) - before < 20
        for c in clients:
            c.sock.close()
