"""smtpd and the content of messages: the true end, chunks, limits, large files."""
import os
import random
import re
import threading

import pytest

from postern import wait_until
from smtpd_rig import MESSAGE, Smtpd

HEADER = b"Subject: x\r\nMessage-ID: <1@src.test>\r\n\r\n"


@pytest.fixture(scope="module")
def smtpd():
    with Smtpd(smtpd_hard_error_limit="1000", smtpd_soft_error_limit="1000",
               message_size_limit="2000000", header_size_limit="1m") as s:
        yield s


@pytest.mark.parametrize("trick", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n",
                                   b"\r\n.\r\r\n", b"\r\r\n.\r\r\n"])
def test_B01_B02_B03_only_the_true_end_ends(smtpd, trick):
    with smtpd.client() as c:
        c.transaction(HEADER + b"body" + trick + b"MAIL FROM:<smuggled@src.test>\r\n")
        code, text = c.reply()
        assert code == 550 and text.startswith("5.5.2"), text
        c.expect("NOOP", "250")


@pytest.mark.parametrize("trick", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r"])
def test_B01_normalized_for_old_devices(trick):
    with Smtpd(smtpd_forbid_bare_newline="normalize") as s, s.client() as c:
        c.transaction(HEADER + b"a" + trick + b"MAIL FROM:<smuggled@src.test>\r\n")
        body = s.accept(c).body
        assert body.endswith(b"MAIL FROM:<smuggled@src.test>\r\n")
        assert not re.search(rb"[^\r]\n|\r[^\n]", body)


def test_bare_newline_no_is_normalize():
    with Smtpd(smtpd_forbid_bare_newline="no") as s, s.client() as c:
        c.transaction(HEADER + b"a\nb\r\n")
        assert s.accept(c).body == HEADER + b"a\r\nb\r\n"


@pytest.mark.parametrize("send, content, added", [
    ("DATA", HEADER + b"a\r\n..\r\n", 0), ("DATA", HEADER + b"a\nb\rc\r\n", 2),
    ("DATA", b"Subject: x\r\nno field\r\n", 2), ("BDAT", HEADER + b"a", 2),
    ("BDAT", b"Subject: x\nno field", 5), ("BDAT", b"", 0), ("DATA", b"no field\r\n", 0)])
def test_what_is_ours_of_a_body(send, content, added):
    """An account does not pay for it, and it is in no limit: qmgr is told how much it is."""
    sent = len(content) - content.count(b"\r\n..")
    with Smtpd(smtpd_forbid_bare_newline="normalize", message_size_limit=str(sent or 1)) as s, \
            s.client() as c:
        c.envelope()
        if send == "DATA":
            c.data(content + b".\r\n")
        else:
            c.send(b"BDAT %d LAST\r\n" % len(content) + content)
        commit = s.accept(c)
        assert commit.added == added
        assert len(commit.body) == sent + added


def test_what_is_ours_of_a_large_body():
    content = HEADER + b"x\n" * 100000 + b"x"
    with Smtpd(smtpd_forbid_bare_newline="normalize", message_size_limit=str(len(content))) as s, \
            s.client() as c:
        c.envelope()
        c.send(b"BDAT %d LAST\r\n" % len(content) + content)
        reply, _ = smtpd_large(s, c, added=100002)
        assert reply == 250


def test_B04_any_split_gives_the_same(smtpd):
    wire = (b"EHLO x\r\nMAIL FROM:<a@src.test>\r\nRCPT TO:<b@dst.test>\r\nBDAT 9\r\nSubject: "
            b"BDAT 9 LAST\r\nx\r\n\r\n..\r\nNOOP\r\n")
    rng = random.Random(4)
    seen = set()
    for _ in range(40):
        cuts = sorted(rng.sample(range(1, len(wire)), rng.randint(0, 12)))
        with smtpd.client() as c:
            for start, end in zip([0, *cuts], [*cuts, len(wire)]):
                c.send(wire[start:end])
            commit = smtpd.commit()
            smtpd.qmgr.send("ipc_committed", tag=commit.tag)
            replies = [c.reply()[0] for _ in range(6)]
        seen.add((commit.body, tuple(replies)))
    assert seen == {(b"Subject: x\r\n\r\n..\r\n", (250,) * 6)}


def test_B04_data_byte_by_byte(smtpd):
    with smtpd.client() as c:
        c.envelope()
        c.expect("DATA", "354")
        for byte in HEADER + b"..\r\n.x\r\n.\r\n":
            c.send(bytes([byte]))
        assert smtpd.accept(c).body == HEADER + b".\r\nx\r\n"


@pytest.mark.parametrize("content", [HEADER + b"a\0b\r\n", b"Subject: a\0b\r\n\r\nbody\r\n",
                                     HEADER + b"body\r\n\0\r\n"])
def test_B05_nul(smtpd, content):
    with smtpd.client() as c:
        c.transaction(content)
        assert c.reply()[0] == 550
        c.envelope()
        c.send(bdat(len(content), True) + content)
        assert c.reply()[0] == 550
        c.transaction()
        assert smtpd.accept(c).body == MESSAGE  # nothing of the others went to qmgr


def test_B08_long_lines(smtpd):
    with smtpd.client() as c:
        c.transaction(HEADER + b"line\r\n" * 20 + b"x" * 65536 + b"\r\n")
        code, content = smtpd_large(smtpd, c)
        assert code == 250 and content.endswith(b"line\r\n" + b"x" * 65536 + b"\r\n")
        c.transaction(HEADER + b"x" * 60000 + b"\r\n")
        assert smtpd.accept(c).body == HEADER + b"x" * 60000 + b"\r\n"
        c.transaction(HEADER + b"x" * 65537 + b"\r\n")
        assert c.reply()[0] == 550


def smtpd_large(smtpd, client, added=0):
    """Plays qmgr for one large message; returns the reply and the file's content."""
    opened = smtpd.qmgr.expect("ipc_large_open")
    fd = os.memfd_create("large")
    smtpd.qmgr.send("ipc_large_fd", fd, tag=opened.tag)
    commit = smtpd.commit()
    assert (commit.tag, commit.id, commit.body) == (opened.tag, opened.id, b"")
    os.lseek(fd, 0, os.SEEK_SET)
    content = b"".join(iter(lambda: os.read(fd, 1 << 20), b""))
    os.close(fd)
    assert (commit.large_len, commit.added) == (len(content), added)
    smtpd.qmgr.send("ipc_committed", tag=commit.tag)
    return client.reply()[0], content


def peak_kib(smtpd):
    with open(f"/proc/{smtpd.master.process.pid}/status", encoding="ascii") as f:
        return int(re.search(r"VmHWM:\s+(\d+)", f.read())[1])


@pytest.mark.parametrize("chunked", [False, True])
def test_B09_endless_line_takes_constant_memory(chunked):
    """The first MiB may cost buffers; the other 199 cost nothing."""
    with Smtpd() as s, s.client() as c:
        c.envelope()
        if chunked:
            c.send(b"BDAT %d LAST\r\n" % (200 << 20))
        else:
            c.expect("DATA", "354")
        block = b"x" * (1 << 20)
        c.send(block)
        s.await_mail(250)  # it has read, and serves others meanwhile
        before = peak_kib(s)
        for _ in range(199):
            c.send(block)
        if not chunked:
            c.send(b"\r\n.\r\n")
        assert c.reply()[0] == 552
        assert peak_kib(s) < before + 2048, f"{before} KiB, then {peak_kib(s)}"
        c.transaction()
        assert s.accept(c).body == MESSAGE


def test_size_limit_at_the_end(smtpd):
    with smtpd.client() as c:
        c.envelope()
        c.expect("DATA", "354")
        c.send(HEADER + (b"x" * 98 + b"\r\n") * 20100 + b".\r\n")
        opened = smtpd.qmgr.expect("ipc_large_open")
        fd = os.memfd_create("large")
        smtpd.qmgr.send("ipc_large_fd", fd, tag=opened.tag)
        os.close(fd)
        assert c.reply()[0] == 552
        assert smtpd.qmgr.expect("ipc_abort").tag == opened.tag
        c.expect("NOOP", "250")


@pytest.mark.parametrize("size", [65535, 65536, 65700, 66000, 300000, 1900000])
def test_content_is_the_same_in_memory_and_in_a_file(smtpd, size):
    rng = random.Random(size)
    body = b"".join(b"." * rng.randint(0, 2) + rng.randbytes(rng.randint(0, 70)).translate(
        None, b"\r\n\0") + b"\r\n" for _ in range(size // 20))[:size - len(HEADER) - 2] + b"\r\n"
    content = (HEADER + body).replace(b"\r\r\n", b"x\r\n")
    wire = content.replace(b"\r\n.", b"\r\n..")
    for chunked in (False, True):
        with smtpd.client() as c:
            c.envelope()
            if chunked:
                c.send(b"BDAT %d LAST\r\n" % len(content) + content)
            else:
                c.data(wire + b".\r\n")
            if len(content) <= 65536:
                assert smtpd.accept(c).body == content
            else:
                assert smtpd_large(smtpd, c) == (250, content)


def test_large_message_that_the_client_gives_up(smtpd):
    with smtpd.client() as c:
        c.envelope()
        c.expect("DATA", "354")
        c.send(HEADER + (b"x" * 98 + b"\r\n") * 2000)
        opened = smtpd.qmgr.expect("ipc_large_open")
        fd = os.memfd_create("large")
        smtpd.qmgr.send("ipc_large_fd", fd, tag=opened.tag)
        os.close(fd)
    assert smtpd.qmgr.expect("ipc_abort").tag == opened.tag


@pytest.mark.parametrize("code", [451, 452])
def test_large_message_that_qmgr_cannot_take(smtpd, code):
    with smtpd.client() as c:
        c.envelope()
        c.expect("DATA", "354")
        c.send(HEADER + (b"x" * 98 + b"\r\n") * 2000 + b".\r\n")
        opened = smtpd.qmgr.expect("ipc_large_open")
        smtpd.qmgr.send("ipc_refused", tag=opened.tag, code=code, enhanced="4.3.1", text="no")
        assert c.reply()[0] == code


def test_F21_disk_full_while_writing(smtpd):
    with smtpd.client() as c:
        c.envelope()
        c.expect("DATA", "354")
        c.send(HEADER + (b"x" * 98 + b"\r\n") * 2000 + b".\r\n")
        opened = smtpd.qmgr.expect("ipc_large_open")
        fd = os.open("/dev/full", os.O_WRONLY)
        smtpd.qmgr.send("ipc_large_fd", fd, tag=opened.tag)
        os.close(fd)
        assert c.reply()[0] == 452
        assert smtpd.qmgr.expect("ipc_abort").tag == opened.tag
        c.expect("NOOP", "250")


def bdat(size, last=False):
    return b"BDAT %d%s\r\n" % (size, b" LAST" if last else b"")


def test_B22_one_byte_chunks(smtpd):
    with smtpd.client() as c:
        c.envelope()
        content = b"Subject: x\r\n\r\n.\r\n.\r\n"
        c.send(b"".join(bdat(1) + bytes([b]) for b in content) + bdat(0, True))
        commit = smtpd.commit()
        assert commit.body == content
        smtpd.qmgr.send("ipc_committed", tag=commit.tag)
        assert {c.reply()[0] for _ in content + b"."} == {250}


@pytest.mark.parametrize("argument", [b"18446744073709551615", b"18446744073709551616 LAST", b"-1",
                                      b"", b"1 LAST x", b"x"])
def test_B22_bad_length_ends_the_session(smtpd, argument):
    with smtpd.client() as c:
        c.envelope()
        c.send(b"BDAT " + argument + b"\r\nMAIL FROM:<a@src.test>\r\n")
        assert c.reply()[0] == 501
        assert c.closed()


def test_B22_reset_between_chunks_and_last_twice(smtpd):
    with smtpd.client() as c:
        c.envelope()
        c.send(bdat(12) + b"Subject: o\r\n")
        assert c.reply()[0] == 250
        c.expect("RSET", "250")
        c.expect("MAIL FROM:<n@src.test>", "250")
        c.expect("RCPT TO:<b@dst.test>", "250")
        c.send(bdat(14, True) + b"Subject: n\r\n\r\n" + bdat(6, True) + b"QUIT\r\n" + b"NOOP\r\n")
        assert smtpd.accept(c).body == b"Subject: n\r\n\r\n"
        assert c.reply()[0] == 503  # and the chunk's QUIT was not taken for a command
        assert c.reply()[0] == 250


@pytest.mark.parametrize("before, code", [((), 503), (("MAIL FROM:<a@src.test>",), 503),
                                          (("MAIL FROM:<a@src.test>", "RCPT TO:<b@>"), 554)])
def test_B22_chunk_without_recipients_is_swallowed(smtpd, before, code):
    with smtpd.client() as c:
        c.expect("EHLO client.test", "250")
        for line in before:
            c.command(line)
        c.send(bdat(6, True) + b"QUIT\r\n" + b"NOOP\r\n")
        assert c.reply()[0] == code
        assert c.reply()[0] == 250


@pytest.mark.parametrize("line", ["DATA", "RCPT TO:<c@dst.test>", "MAIL FROM:<c@src.test>"])
def test_B22_only_bdat_follows_bdat(smtpd, line):
    with smtpd.client() as c:
        c.envelope()
        c.send(bdat(0))
        assert c.reply()[0] == 250
        c.expect(line, "503 5.5.1")
        c.send(bdat(len(MESSAGE), True) + MESSAGE)
        assert smtpd.accept(c).body == MESSAGE


def test_chunk_over_the_size_limit(smtpd):
    with smtpd.client() as c:
        c.envelope()
        c.send(bdat(2100000) + b"QUIT\r\n" * 350000 + bdat(0, True))
        assert c.reply()[0] == 552
        assert c.reply()[0] == 503


@pytest.mark.parametrize("hops, code", [(50, 250), (51, 554), (150, 554)])
def test_B31_loop(smtpd, hops, code):
    with smtpd.client() as c:
        c.transaction(b"Received: from a by b; now\r\n" * hops + MESSAGE)
        if code == 250:
            smtpd.accept(c)
        else:
            got, text = c.reply()
            assert got == code and text.startswith("5.4.6"), text


@pytest.mark.parametrize("line, in_file", [(b"X: " + b"y" * 900 + b"\r\n", True),
                                           (b"X: y\r\n", False)])
def test_B32_headers(smtpd, line, in_file):
    with smtpd.client() as c:
        c.envelope()
        c.expect("DATA", "354")
        header = line * (5 * 1024 * 1024 // len(line))
        sender = threading.Thread(target=c.send, args=(header + b"\r\nx\r\n.\r\n",))
        sender.start()
        if in_file:  # too many bytes show later than too many lines
            opened = smtpd.qmgr.expect("ipc_large_open")
            fd = os.memfd_create("large")
            smtpd.qmgr.send("ipc_large_fd", fd, tag=opened.tag)
            os.close(fd)
            assert smtpd.qmgr.expect("ipc_abort").tag == opened.tag
        sender.join()
        assert c.reply()[0] == 554


@pytest.mark.parametrize("content, prefix_end, body", [
    (b"no header at all\r\n", b"\r\n\r\n", None),
    (b" leading space\r\n", b"\r\n\r\n", None),
    (b"Subject: x\r\nno field\r\n", None, b"Subject: x\r\n\r\nno field\r\n"),
    (b"Subject: x\r\n", None, None),
    (b"", None, None),
])
def test_B32_message_without_a_blank_line(smtpd, content, prefix_end, body):
    """What is no header never becomes part of ours."""
    with smtpd.client() as c:
        c.transaction(content)
        commit = smtpd.accept(c)
    assert commit.body == (content if body is None else body)
    assert commit.prefix.endswith(b"\r\n")
    assert commit.prefix.endswith(b"\r\n\r\n") == (prefix_end is not None)


def test_submission_completes_the_header():
    with Smtpd(smtpd_service_kind="submission") as s, s.client() as c:
        c.transaction(b"Subject: x\r\n\r\nbody\r\n")
        commit = s.accept(c)
        id_ = commit.id.decode()
        made = re.search(rb"\r\nMessage-ID: (<\d{14}\.\w+@relay\.test>)\r\n", commit.prefix)
        assert made and commit.message_id == made[1]
        assert len(re.findall(rb"^Date: \w{3}, ", commit.prefix, re.M)) == 1
        s.wait_log(rf"{id_}: message-id={made[1].decode()}$")
        c.transaction(b"Date: then\r\nMessage-ID: <own@src.test>\r\n\r\nbody\r\n")
        commit = s.accept(c)
        assert b"Date: " not in commit.prefix and b"Message-ID" not in commit.prefix
        assert commit.message_id == b"<own@src.test>"


def test_8bit_content_is_marked(smtpd):
    with smtpd.client() as c:
        c.transaction(HEADER + "gr\u00fcn\r\n".encode())
        assert smtpd.accept(c).flags == 1


def test_memory_of_the_process_is_limited():
    with Smtpd(smtpd_memory_limit="1m", commits=1) as s:
        clients = [s.client() for _ in range(25)]
        for c in clients:
            c.transaction(HEADER + (b"x" * 98 + b"\r\n") * 600)
        codes = set()
        first = s.commit()
        full = [c for c in clients[1:] if _answered(c)]
        codes = {c.reply()[0] for c in full}
        assert codes == {452}
        assert 1 <= len(full) < 20
        s.qmgr.send("ipc_committed", tag=first.tag)
        for _ in range(len(clients) - len(full) - 1):
            s.qmgr.send("ipc_committed", tag=s.commit().tag)
        for c in clients:
            if c not in full:
                assert c.reply()[0] == 250
            c.sock.close()


def _answered(client):
    client.sock.settimeout(0.05)
    try:
        line = client.line()
    except TimeoutError:
        return False
    finally:
        client.sock.settimeout(20)
    client.pending = line.encode() + b"\r\n" + client.pending
    return True


def test_F34_content_that_takes_too_long():
    with Smtpd(smtpd_data_time_limit="1s") as s, s.client() as c:
        c.envelope()
        c.expect("DATA", "354")
        reply = None
        c.sock.settimeout(0.1)
        for _ in range(100):
            c.send(b"x\r\n")
            try:
                reply = c.reply()
                break
            except TimeoutError:
                continue
        assert reply[0] == 421
        s.wait_log(r"timeout after DATA \(\d+ bytes\) from unknown")


# ---- what the header tells of a message's class and signer (enum mail_class) -------------

@pytest.mark.parametrize("header, mail_class, signer", [
    (b"From: a@From.test\r\n", 0, b"from.test"),
    (b"Precedence: bulk\r\n", 2, b""),
    (b"List-Unsubscribe: <mailto:x@y.test>\r\nFrom: a@from.test\r\n", 2, b"from.test"),
    (b"X-Mail-Class: transactional\r\nPrecedence: bulk\r\n", 2, b""),  # nobody allows that
    (b"X-Mail-Class: normal\r\nList-Id: x\r\n", 0, b""),
    (b"X-Mail-Class: bulk\r\n", 2, b""),
    (b"DKIM-Signature: v=1; a=rsa-sha256;\r\n d=Signer.test; s=k\r\nFrom: a@n.signer.test\r\n", 0, b"signer.test"),
    (b"DKIM-Signature: v=1; d=victim.test\r\nFrom: a@from.test (x@victim.test)\r\n", 0, b"from.test"),
])
def test_class_and_signer(smtpd, header, mail_class, signer):
    with smtpd.client() as c:
        c.transaction(HEADER[:-2] + header + b"\r\nbody\r\n")
        commit = smtpd.accept(c)
        assert (commit.mail_class, commit.signer) == (mail_class, signer)


def test_a_header_raises_the_class_where_that_is_allowed():
    with Smtpd(mail_class_header_raises="yes") as s, s.client() as c:
        c.transaction(HEADER[:-2] + b"X-Mail-Class: transactional\r\nPrecedence: bulk\r\n\r\nbody\r\n")
        assert s.accept(c).mail_class == 1


def test_bulk_mail_is_not_detected_where_that_is_off():
    with Smtpd(bulk_mail_detection="no", mail_class_header="") as s, s.client() as c:
        c.transaction(HEADER[:-2] + b"X-Mail-Class: transactional\r\nPrecedence: bulk\r\n\r\nbody\r\n")
        assert s.accept(c).mail_class == 0


def test_a_reload_within_a_header_changes_nothing_for_that_message():
    """The name of the class's field is that of the message's beginning."""
    with Smtpd() as s, s.client() as c:
        c.envelope()
        c.expect("DATA", "354")
        c.send(HEADER[:-2])
        s.master.configure(myhostname="other.test", mail_class_header="X-Other")
        wait_until(lambda: "other.test" in greeting(s), what="the new configuration")
        c.send(b"X-Mail-Class: bulk\r\nX-Other: normal\r\n\r\nbody\r\n.\r\n")
        assert s.accept(c).mail_class == 2
        c.transaction(HEADER[:-2] + b"X-Other: bulk\r\n\r\nbody\r\n")
        assert s.accept(c).mail_class == 2
        c.transaction(HEADER[:-2] + b"X-Mail-Class: bulk\r\n\r\nbody\r\n")
        assert s.accept(c).mail_class == 0


def greeting(smtpd):
    with smtpd.client(greet=False) as c:
        return c.reply()[1]
