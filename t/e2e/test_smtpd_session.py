"""smtpd's dialogue: which command when, what is refused, limits of a session."""
import os
import re
import smtplib
import subprocess
import threading

import pytest

from smtpd_rig import MESSAGE, Client, Smtpd


@pytest.fixture(scope="module")
def smtpd():
    with Smtpd(smtpd_hard_error_limit="1000", smtpd_soft_error_limit="1000",
               smtpd_junk_command_limit="50") as s:
        yield s


def test_ehlo_announces_what_works(smtpd):
    with smtpd.client() as c:
        text = c.expect("EHLO client.test", "250")
    assert text.split("\n") == ["relay.test", "PIPELINING", "SIZE 52428800", "8BITMIME", "SMTPUTF8",
                                "ENHANCEDSTATUSCODES", "DSN", "CHUNKING", "LIMITS RCPTMAX=1000"]


def test_discarded_keywords_are_not_announced():
    with Smtpd(smtpd_discard_ehlo_keywords="chunking, LIMITS dsn", message_size_limit="0") as s:
        with s.client() as c:
            text = c.expect("EHLO client.test", "250")
    assert text.split("\n")[1:] == ["PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8",
                                    "ENHANCEDSTATUSCODES"]


def test_message_is_handed_over_and_answered_when_durable(smtpd):
    with smtpd.client() as c:
        c.transaction(b"Subject: x\r\nMessage-ID: <1@src.test>\r\n\r\n..dot\r\n",
                      recipients=("b@dst.test", "c@dst.test"))
        commit = smtpd.commit()
        assert (commit.sender, commit.recipient_count) == (b"a@src.test", 2)
        assert [r.address for r in commit.recipients] == [b"b@dst.test", b"c@dst.test"]
        assert commit.body == b"Subject: x\r\nMessage-ID: <1@src.test>\r\n\r\n.dot\r\n"
        assert commit.message_id == b"<1@src.test>"
        assert commit.client == b"unknown[127.0.0.1]"
        assert re.fullmatch(rb"Received: from client\.test \(unknown \[127\.0\.0\.1\]\)\r\n"
                            rb"\tby relay\.test \(Postern\) with ESMTP id \w{15};[^<]*\r\n",
                            commit.prefix), commit.prefix
        c.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            c.reply()
        c.sock.settimeout(20)
        smtpd.qmgr.send("ipc_committed", tag=commit.tag)
        assert c.reply() == (250, f"2.0.0 Ok: queued as {commit.id.decode()}")
        c.expect("QUIT", "221 2.0.0")
        assert c.closed()
    id_ = commit.id.decode()
    smtpd.wait_log(rf"{id_}: client=unknown\[127.0.0.1\]$")
    smtpd.wait_log(rf"{id_}: message-id=<1@src.test>$")
    smtpd.wait_log(r"disconnect from unknown\[127.0.0.1\] "
                   r"ehlo=1 mail=1 rcpt=2 data=1 quit=1 commands=6$")


def test_received_names_a_single_recipient(smtpd):
    with smtpd.client() as c:
        c.transaction()
        assert b"for <b@dst.test>;" in smtpd.accept(c).prefix


def test_commands_in_one_packet_are_answered_in_order(smtpd):
    with smtpd.client() as c:
        c.send("EHLO x\r\nMAIL FROM:<a@src.test>\r\nRCPT TO:<b@dst.test>\r\n"
               "RCPT TO:<bad\r\nDATA\r\n")
        assert [c.reply()[0] for _ in range(5)] == [250, 250, 250, 501, 354]
        c.send(MESSAGE + b".\r\nMAIL FROM:<c@src.test>\r\nQUIT\r\n")
        smtpd.accept(c)
        assert c.reply()[0] == 250
        assert c.reply()[0] == 221


def test_B06_control_bytes_in_a_command(smtpd):
    with smtpd.client() as c:
        c.expect("EHLO client.test", "250")
        c.expect(b"MAIL FROM:<a\0@src.test>", "500 5.5.2")
        c.expect(b"NO\x01OP", "500 5.5.2")
        c.expect("RCPT TO:<b@dst.test>", "503 5.5.1")
        c.expect("MAIL FROM:<a@src.test>", "250")


@pytest.mark.parametrize("size", [3000, 100000])
def test_B07_long_command_line(smtpd, size):
    with smtpd.client() as c:
        c.send(b"NOOP " + b"x" * size + b"\r\nNOOP\r\n")
        assert c.reply()[0] == 500
        assert c.closed()


def test_B07_line_without_end(smtpd):
    with smtpd.client() as c:
        try:
            for _ in range(64):
                c.send(b"x" * 65536)
        except ConnectionError:
            pass
        assert c.reply() in ((500, "5.5.2 Error: line too long"), None)


def test_B17_order_of_commands(smtpd):
    with smtpd.client() as c:
        for early in ("RCPT TO:<b@dst.test>", "DATA"):
            c.expect(early, "503 5.5.1")
        c.expect("EHLO client.test", "250")
        for early in ("RCPT TO:<b@dst.test>", "DATA"):
            c.expect(early, "503 5.5.1")
        c.expect("MAIL FROM:<a@src.test>", "250")
        c.expect("DATA", "503 5.5.1")


def test_B18_data_with_every_recipient_refused(smtpd):
    with smtpd.client() as c:
        c.expect("EHLO client.test", "250")
        c.expect("MAIL FROM:<a@src.test>", "250")
        c.expect("RCPT TO:<b@>", "553")
        c.expect("DATA", "554 5.5.1")


@pytest.mark.parametrize("clear", ["RSET", "EHLO client.test", "HELO client.test", "failed DATA"])
def test_B19_everything_clears_alike(smtpd, clear):
    with smtpd.client() as c:
        c.envelope("old@src.test", ["old@dst.test"], " SMTPUTF8 BODY=8BITMIME RET=HDRS ENVID=old")
        c.expect("MAIL FROM:<b@src.test>", "503 5.5.1")
        if clear == "failed DATA":
            c.data(b"x: y\r\n\r\nbare\nLF\r\n.\r\n")
            assert c.reply()[0] == 550
        else:
            c.expect(clear, "250")
        c.expect("RCPT TO:<c@dst.test>", "503")
        c.expect("MAIL FROM:<new@src.test>", "250")
        c.expect("RCPT TO:<new@dst.test>", "250")
        c.data(MESSAGE + b".\r\n")
        commit = smtpd.accept(c)
    assert (commit.sender, commit.flags, commit.ret, commit.envid) == (b"new@src.test", 0, 0, b"")
    assert [r.address for r in commit.recipients] == [b"new@dst.test"]


def test_B20_recipient_after_a_refusal_at_the_end(smtpd):
    with smtpd.client() as c:
        c.transaction(b"x: y\r\n\r\n\0\r\n")
        assert c.reply()[0] == 550
        c.expect("RCPT TO:<b@dst.test>", "503 5.5.1")


@pytest.mark.parametrize("behind", ["Subject: x\r\n\r\n.\r\n", "QUIT\r\n"])
def test_B21_content_before_354(smtpd, behind):
    with smtpd.client() as c:
        c.envelope()
        c.send("DATA\r\n" + behind)
        assert c.reply()[0] == 554
        assert c.closed()
    smtpd.wait_log(r"improper command pipelining after DATA from unknown\[127.0.0.1\]")


@pytest.mark.parametrize("argument, reply", [
    ("FROM:<a@src.test> SIZE=-1", "501 5.5.4"),
    ("FROM:<a@src.test> SIZE=99999999999999999999999", "501 5.5.4"),
    ("FROM:<a@src.test> SIZE=1 SIZE=1", "501 5.5.4"),
    ("FROM:<a@src.test> SIZE=52428801", "552 5.3.4"),
    ("FROM:<a@src.test> NEWS=1", "555 5.5.4"),
    ("FROM:<a@src.test> ENVID=a+0", "501 5.5.4"),
    ("FROM:<\xe4@src.test>", "553"),
    ("FROM:<" + "l" * 65 + "@src.test>", "553"),
    ("FROM:<a@" + "l" * 64 + ".test>", "553"),
    ("FROM:<a@" + "l." * 126 + "test>", "553"),
    ("FROM:<a@src.test> ENVID=a+00b", "501 5.5.4"),
    ("FROM:<a@src.test> ENVID=a+0Ab", "501 5.5.4"),
    (b"FROM:<\xff@src.test> SMTPUTF8", "553"),
    ("FROM:<a@src.test", "501"),
    ("TO:<a@src.test>", "501 5.5.4"),
])
def test_B23_B25_B28_B29_bad_mail(smtpd, argument, reply):
    with smtpd.client() as c:
        c.expect("EHLO client.test", "250")
        c.expect(b"MAIL " + argument if isinstance(argument, bytes) else f"MAIL {argument}", reply)
        c.expect("RCPT TO:<b@dst.test>", "503")


@pytest.mark.parametrize("path, canonical", [
    ('<"a\\"@b"@c.test>', b'"a\\"@b"@c.test'),
    ("<@r.test:a@b.test>", b"a@b.test"),
    ("<a@[IPv6:2001:db8::1]>", b"a@[IPv6:2001:db8::1]"),
    ("<;sh@x.test>", None),
    ("<a%b@c.test>", b"a%b@c.test"),
    ("<b.test!a@c.test>", b"b.test!a@c.test"),
    ("<@x.test,@y.test:a@b.test>", b"a@b.test"),
    ("<a@[IPv6:2001:db8::g]>", None),
    ("<a@[300.1.1.1]>", None),
    ('<"a@c.test>', None),
    ("<a@b@c.test>", None),
    (b"<\xc3\xa4@c.test>", None),
    (b"<\xff@c.test>", None),
    (b"<a@\xc3\xa4.test>", None),
    ("<postmaster>", b"postmaster@relay.test"),
    ("<a@b..test>", None),
    ("<a b@>", None),
    ("<a..b@>", None),
    ("<a@>", None),
    ("<" + "l" * 64 + "@c.test>", b"l" * 64 + b"@c.test"),
    ("<" + "l" * 65 + "@c.test>", None),
    ("<a@" + "l" * 64 + ".test>", None),
    ("<a@" + "l." * 126 + "test>", None),
    ("<@>", None),
    ("<>", None),
])
def test_B24_B26_B27_recipient_paths(smtpd, path, canonical):
    with smtpd.client() as c:
        c.expect("EHLO client.test", "250")
        c.expect("MAIL FROM:<>", "250")
        path = path if isinstance(path, bytes) else path.encode()
        code, text = c.command(b"RCPT TO:" + path)
        if canonical is None:
            assert code == (501 if path in (b"<>", b'<"a@c.test>') else 553), text
            c.expect("DATA", "554 5.5.1")
            return
        assert code == 250, text
        c.data(MESSAGE + b".\r\n")
        assert smtpd.accept(c).recipients[0].address == canonical


@pytest.mark.parametrize("address", ["dst.test!b@other.test", "b%dst.test@other.test",
                                     "@other.test:b@dst.test", '"b@dst.test"@other.test'])
def test_B27_no_trick_gets_around_the_denial(address):
    with Smtpd(mynetworks="192.0.2.0/24") as s, s.client() as c:
        c.expect("EHLO client.test", "250")
        c.expect("MAIL FROM:<a@src.test>", "250")
        c.expect(f"RCPT TO:<{address}>", "554 5.7.1")


def test_B27_relay_is_denied_to_others():
    with Smtpd(mynetworks="192.0.2.0/24") as s, s.client() as c:
        c.expect("EHLO client.test", "250")
        c.expect("MAIL FROM:<a@src.test>", "250")
        c.expect("RCPT TO:<b%c@dst.test>", "554 5.7.1 <b%c@dst.test>: Relay access denied")
        s.wait_log(r"NOQUEUE: reject: RCPT from unknown\[127.0.0.1\]: 554 5.7.1 "
                   r"<b%c@dst.test>: Relay access denied; "
                   r"from=<a@src.test> to=<b%c@dst.test> proto=ESMTP helo=<client.test>$")


def test_B30_a_hundred_thousand_recipients_take_constant_memory(monkeypatch):
    """Beyond the limit 452, for a while; what is refused takes no memory, and what was
    taken is given back with the session."""
    def flood(s):
        with s.client() as c:
            c.envelope(recipients=())
            names, codes = (b"recipient-%d@dst.test" % i for i in range(2000)), []
            for _ in range(4):
                c.send(b"".join(b"RCPT TO:<%s>\r\n" % n for _, n in zip(range(500), names)))
                codes += [c.reply()[0] for _ in range(500)]
            assert codes == [250] * 1000 + [452] * 1000
            with open(f"/proc/{s.master.process.pid}/status", encoding="ascii") as f:
                return int(re.search(r"VmRSS:\s+(\d+)", f.read())[1])
    # a sanitized build keeps freed memory for a while otherwise
    monkeypatch.setenv("ASAN_OPTIONS", os.environ.get("ASAN_OPTIONS", "") +
                       ":quarantine_size_mb=0:thread_local_quarantine_size_kb=0")
    with Smtpd() as s:
        sizes = [flood(s) for _ in range(50)]
    assert max(sizes) < sizes[4] + 1000, f"KiB: {sizes}"


def test_B30_too_many_recipients():
    with Smtpd(smtpd_recipient_limit="1000", smtpd_soft_error_limit="1000") as s, s.client() as c:
        c.envelope(recipients=())
        c.send(b"".join(b"RCPT TO:<r%d@dst.test>\r\n" % i for i in range(1100)))
        codes = [c.reply()[0] for _ in range(1100)]
        assert codes == [250] * 1000 + [452] * 100
        c.data(MESSAGE + b".\r\n")
        commit = s.accept(c)
        assert commit.recipient_count == 1000


def test_many_recipients_travel_in_several_frames():
    with Smtpd(smtpd_recipient_limit="50000") as s, s.client() as c:
        c.envelope(recipients=())
        names = [b"recipient-%d@dst.test" % i for i in range(20000)]
        for part in range(0, len(names), 500):
            c.send(b"".join(b"RCPT TO:<%s>\r\n" % n for n in names[part:part + 500]))
            assert {c.reply()[0] for _ in range(500)} == {250}
        c.data(MESSAGE + b".\r\n")
        got, m = [], None
        while m is None or m.name != "ipc_commit":
            m = s.qmgr.receive()
            got += [r.address for r in m.recipients]
        assert m.recipient_count == len(names)
        assert got == names
        s.qmgr.send("ipc_committed", tag=m.tag)
        assert c.reply()[0] == 250


@pytest.mark.parametrize("line", ["GET / HTTP/1.1", "POST /x HTTP/1.0", "CONNECT a:25 HTTP/1.1"])
def test_B36_http(smtpd, line):
    with smtpd.client() as c:
        c.send(line + "\r\nHost: x\r\n\r\nMAIL FROM:<a@src.test>\r\n")
        assert c.reply()[0] == 554
        assert c.closed()
    smtpd.wait_log("non-SMTP command from unknown")


def test_B37_talks_before_the_greeting(smtpd):
    for _ in range(200):  # the greeting may be faster than the client
        with smtpd.client(greet=False) as c:
            c.send("EHLO early.test\r\nMAIL FROM:<a@src.test>\r\n")
            if c.reply()[0] == 554:
                assert c.closed()
                return
    raise AssertionError("never refused")


def test_B38_flood_of_commands_without_a_message(smtpd):
    with smtpd.client() as c:
        c.send("NOOP\r\nRSET\r\nVRFY x\r\nHELP\r\n" * 100)
        codes = [c.reply()[0] for _ in range(51)]
        assert codes == ([250, 250, 252, 214] * 13)[:50] + [421]
        assert c.closed()


def test_B38_flood_of_greetings(smtpd):
    with smtpd.client() as c:
        c.send("EHLO x\r\n" * 100)
        assert [c.reply()[0] for _ in range(52)] == [250] * 51 + [421]


def test_replies_wait_for_a_client_that_does_not_read():
    with Smtpd(smtpd_junk_command_limit="100000") as s, s.client() as c:
        sender = threading.Thread(target=c.send, args=(f"EHLO {'x' * 240}\r\n" * 60000,))
        sender.start()
        sender.join(0.5)
        assert sender.is_alive(), "more replies were taken in than buffers hold"
        with open(f"/proc/{s.master.process.pid}/status", encoding="ascii") as f:
            assert int(re.search(r"VmHWM:\s+(\d+)", f.read())[1]) < 100000
        assert {c.reply()[0] for _ in range(60000)} == {250}
        sender.join()


def test_B38_error_budget():
    with Smtpd(smtpd_soft_error_limit="3", smtpd_hard_error_limit="5",
               smtpd_error_sleep_time="1s") as s, s.client() as c:
        c.send("BOGUS\r\n" * 20)
        assert [c.reply()[0] for _ in range(6)] == [500] * 5 + [421]
        assert c.closed()
        s.wait_log(r"too many errors after UNKNOWN from unknown\[127.0.0.1\]")
        s.wait_log(r"disconnect from unknown\[127.0.0.1\] unknown=0/5 commands=0/5")


def test_error_budget_is_renewed_by_a_message():
    with Smtpd(smtpd_soft_error_limit="10", smtpd_hard_error_limit="4") as s, s.client() as c:
        for _ in range(3):
            for _ in range(3):
                c.expect("BOGUS", "500")
            c.transaction()
            s.accept(c)


def test_connections_per_client_are_limited():
    with Smtpd(smtpd_client_connection_count_limit="2",
               smtpd_client_event_limit_exceptions="192.0.2.1") as s:
        with s.client(), s.client():
            with s.client(greet=False) as c:
                assert c.reply()[0] == 421
                assert c.closed()
            with s.client(source="127.0.0.2"):
                pass
        s.wait_log(r"Connection concurrency limit exceeded: 3 from unknown\[127.0.0.1\]")
        s.wait_log(r"(?s)(disconnect.*){3}")
        with s.client():
            pass


@pytest.mark.parametrize("limit, reply", [
    ("smtpd_client_message_rate_limit", [250, 250, 450]),
    ("smtpd_client_recipient_rate_limit", [250, 250, 250]),
])
def test_rates_per_client_are_limited(limit, reply):
    with Smtpd(smtpd_client_event_limit_exceptions="192.0.2.1", **{limit: "3"}) as s:
        with s.client() as c:
            c.expect("EHLO client.test", "250")
            got = []
            for _ in range(3):  # the rig's probe was the first message
                got.append(c.command("MAIL FROM:<a@src.test>")[0])
                c.expect("RSET", "250")
            assert got == reply
            if limit == "smtpd_client_recipient_rate_limit":
                c.expect("MAIL FROM:<a@src.test>", "250")
                codes = [c.command("RCPT TO:<b@dst.test>")[0] for _ in range(4)]
                assert codes == [250, 250, 250, 450]


def test_helo_can_be_required():
    with Smtpd(smtpd_helo_required="yes") as s, s.client() as c:
        c.expect("MAIL FROM:<a@src.test>", "503 5.5.1")
        c.expect("HELO client.test", "250 relay.test")
        c.expect("MAIL FROM:<a@src.test>", "250")


@pytest.mark.parametrize("parameter", [
    "ORCPT=rfc822;a+00b@x.test", "ORCPT=rfc822;a+0Ab@x.test", "ORCPT=rfc822;a+0Db@x.test",
    "ORCPT=rfc822;a+0", "ORCPT=rfc822;a+GG@x.test", "ORCPT=rfc822",
    "ORCPT=rfc822;a@x ORCPT=rfc822;a@x", "NOTIFY=NEVER,DELAY", "NOTIFY=SOMETIMES"])
def test_B23_B29_bad_recipient_parameters(smtpd, parameter):
    with smtpd.client() as c:
        c.envelope(recipients=())
        c.expect(f"RCPT TO:<b@dst.test> {parameter}", "501 5.5.4")
        c.expect("DATA", "554 5.5.1")  # nobody was added


def test_dsn_parameters_arrive_decoded(smtpd):
    with smtpd.client() as c:
        c.envelope(recipients=(), parameters=" RET=FULL ENVID=a+2Bb BODY=8BITMIME")
        c.expect("RCPT TO:<b@dst.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b+2Bc@x.test", "250")
        c.expect("RCPT TO:<c@dst.test> NOTIFY=NEVER", "250")
        c.data(MESSAGE + b".\r\n")
        commit = smtpd.accept(c)
    assert (commit.ret, commit.envid, commit.flags) == (2, b"a+b", 1)
    assert [(r.notify, r.orcpt) for r in commit.recipients] == [(10, b"rfc822;b+c@x.test"),
                                                               (1, b"")]


def test_idle_client_is_timed_out():
    with Smtpd(smtpd_timeout="1s") as s, s.client() as c:
        c.expect("EHLO client.test", "250")
        assert c.reply() == (421, "4.4.2 relay.test Error: timeout exceeded")
        assert c.closed()
        s.wait_log(r"timeout after EHLO from unknown\[127.0.0.1\]")


def test_lost_connection_is_logged(smtpd):
    with smtpd.client() as c:
        c.envelope()
        c.data(b"Subject: half a mess")
    smtpd.wait_log(r"lost connection after DATA \(20 bytes\) from unknown\[127.0.0.1\]")


def test_standard_clients(smtpd):
    def serve(count):
        return [smtpd.qmgr.send("ipc_committed", tag=smtpd.commit().tag) for _ in range(count)]
    t = threading.Thread(target=serve, args=(2,))
    t.start()
    with smtplib.SMTP("127.0.0.1", smtpd.port) as c:
        c.sendmail("a@src.test", ["b@dst.test", "c@dst.test"], MESSAGE)
    done = subprocess.run(["swaks", "--server", f"127.0.0.1:{smtpd.port}", "--from", "a@src.test",
                           "--to", "b@dst.test", "--silent", "2", "--suppress-data"],
                          timeout=30, check=False, capture_output=True, text=True)
    t.join()
    assert done.returncode == 0, done.stdout + done.stderr


def test_draining_ends_sessions_between_messages():
    s = Smtpd()
    with s.client() as idle, s.client() as busy:
        busy.envelope()
        s.master.master.send("ipc_drain", seconds=60)
        assert idle.reply()[0] == 421
        assert idle.closed()
        busy.data(MESSAGE + b".\r\n")
        s.accept(busy)
        assert busy.reply()[0] == 421
        assert busy.closed()
    s.master.stop()


def test_many_sessions_are_idle_at_little_cost():
    """Not the figure of the benchmark: a bound that a leak or a buffer would break."""
    def resident(pid):
        with open(f"/proc/{pid}/status", encoding="ascii") as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read())[1])
    with Smtpd(smtpd_client_event_limit_exceptions="127.0.0.0/8") as s:
        before = resident(s.master.process.pid)
        clients = [Client(s.port) for _ in range(400)]
        for c in clients:
            c.expect("EHLO client.test", "250")
        grown = resident(s.master.process.pid) - before
        for c in clients:
            c.sock.close()
        assert grown / len(clients) < 16, f"{grown} KiB for {len(clients)} sessions"
