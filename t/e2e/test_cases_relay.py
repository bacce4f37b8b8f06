"""The whole relay between clients and servers that misbehave: what a sender and an
operator see of it."""
import json
import os
import re
import signal
import smtplib
import socket
import threading

import pytest

from dnsserver import DnsServer
from postern import Postern, wait_until
from relay_rig import Hangup, Script
from sink import Sink

FAST = {"minimal_backoff_time": "1s", "maximal_backoff_time": "1s",
        "destination_suspend_time": "1s", "smtp_connection_cache_time_limit": "0s"}
CONTENT = b"Subject: case\r\nMessage-ID: <case@src.test>\r\n\r\nbody\r\n"


def recipients(sink):
    return [m.recipients[0] for m in list(sink.messages)]


def wait_empty(p):
    wait_until(lambda: not p.spool_files("new"), 30, "an empty queue")


def nothing_more(file):
    """The other end is gone without another word; with input that it had not
    read, the kernel says so by a reset."""
    try:
        return file.readline() == b""
    except ConnectionResetError:
        return True


def raw(p):
    """A connection that has greeted and given an envelope, ready for DATA."""
    sock = socket.create_connection(("127.0.0.1", p.port), 20)
    file = sock.makefile("rb")
    file.readline()
    for line in ("HELO client.test", "MAIL FROM:<a@src.test>", "RCPT TO:<b@dst.test>"):
        sock.sendall(line.encode() + b"\r\n")
        assert file.readline().startswith(b"250")
    return sock, file


def start_data(sock, file, content):
    sock.sendall(b"DATA\r\n")
    assert file.readline().startswith(b"354")
    sock.sendall(content)


def relay_to(place, server, **config):
    return Postern(place, relayhost=f"[127.0.0.1]:{server.port}", **{**FAST, **config})


# ---- clients -------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["reject", "normalize"])
@pytest.mark.parametrize("end", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r\r\n"])
def test_B01_B02_B03_nothing_is_smuggled(place, end, mode):
    """The second message of the trick is seen by nobody as a message."""
    with Sink() as sink, relay_to(place, sink, smtpd_forbid_bare_newline=mode) as p:
        sock, file = raw(p)
        start_data(sock, file, CONTENT + b"x" + end + b"MAIL FROM:<evil@src.test>\r\n"
                   b"RCPT TO:<victim@dst.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n")
        code = file.readline()[:3]
        sock.sendall(b"QUIT\r\n")
        assert file.readline().startswith(b"221"), "more replies than messages"
        sock.close()
        p.send("a@src.test", ["last@dst.test"], CONTENT)
        sink.wait(2 if code == b"250" else 1)
        wait_empty(p)
        assert mode == "normalize" or code == b"550"
        assert "victim@dst.test" not in sink.attempts
        assert set(recipients(sink)) <= {"b@dst.test", "last@dst.test"}
        for m in sink.messages:
            assert not re.search(rb"(?<!\r)\n|\r(?!\n)", m.content)


def test_B27_percent_and_bang_are_literal(place):
    """No routing is read out of a local part: it travels as it came."""
    tricks = ["user%victim.test@dst.test", "victim.test!user@dst.test"]
    with Sink() as sink, relay_to(place, sink) as p:
        p.send("a@src.test", tricks, CONTENT)
        sink.wait(1)
        assert [r for m in sink.messages for r in m.recipients] == tricks


def test_B31_a_loop_ends_with_a_bounce(place):
    """The relay as its own next hop: hops are counted, and the sender hears of it."""
    with Sink() as back:
        with Postern(place, start=False, **FAST) as p:
            p.write_config(relayhost=f"[127.0.0.1]:{p.port}",
                           transport_maps=f"inline:{{ src.test=smtp:[127.0.0.1]:{back.port} }}")
            p.start()
            p.send("a@src.test", ["b@dst.test"], CONTENT)
            notice = back.wait(1, 60)[0]
            assert notice.recipients == ["a@src.test"] and b"5.4.6" in notice.content
            wait_empty(p)
            assert len(back.messages) == 1
            assert p.log().count("status=sent") < 110


def test_B39_F38_half_closed_and_gone_clients(place):
    with Sink() as sink, relay_to(place, sink) as p:
        sock, file = raw(p)
        start_data(sock, file, CONTENT + b".\r\n")
        sock.shutdown(socket.SHUT_WR)
        assert file.readline().startswith(b"250 2.0.0 Ok: queued as ")
        assert nothing_more(file)
        sock.close()
        sink.wait(1)
        sock, file = raw(p)
        start_data(sock, file, CONTENT + b".\r\n")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        file.close()
        sock.close()
        # what came with the reset may be lost with it; what was logged is owed
        p.send("a@src.test", ["last@dst.test"], CONTENT)
        wait_until(lambda: "last@dst.test" in recipients(sink), 20, "the last message")
        wait_empty(p)
        assert len(sink.messages) == p.log().count("(queue active)")


def test_F34_slow_client_is_put_out_and_leaves_nothing(place):
    with Sink() as sink, relay_to(place, sink, smtpd_timeout="1s") as p:
        sock, file = raw(p)
        start_data(sock, file, CONTENT[:20])
        assert file.readline().startswith(b"421 4.4.2 ")
        assert nothing_more(file)
        file.close()
        sock.close()
        p.send("a@src.test", ["last@dst.test"], CONTENT)
        sink.wait(1)
        wait_empty(p)
        assert recipients(sink) == ["last@dst.test"]


# ---- servers -------------------------------------------------------------------


MALFORMED = {
    "B40_many_lines": b"250-x\r\n" * 200 + b"250 x\r\n",
    "B41_not_a_code": b"999 what\r\n",
    "B41_NUL": b"250 o\0k\r\n",
    "B42_mixed": b"250-x\r\n550 y\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_B40_B41_B42_malformed_replies_defer_and_never_bounce(place, name):
    def bad(c):
        c.hello()
        c.expect("MAIL")
        c.sock.sendall(MALFORMED[name])
        c.line()
    with Script(bad, bad, lambda c: c.mail_session()) as server, relay_to(place, server) as p:
        queue_id = p.send("a@src.test", ["b@dst.test"], CONTENT)
        p.wait_log(rf"{queue_id}: to=<b@dst.test>, .*dsn=4\.\d\.\d, status=deferred ")
        p.wait_log(rf"{queue_id}: to=<b@dst.test>, .*status=sent ")
        wait_empty(p)
        assert "bounced" not in p.log()


def test_B44_remote_text_cannot_change_a_log_or_a_terminal(place):
    """A reply with ANSI sequences and a line that looks like one of ours."""
    evil = "550 5.7.1 \x1b[2J\x1b]0;owned\x07 Jan  1 postern/qmgr[1]: X: removed"
    with Sink() as back, Script(lambda c: c.mail_session(replies={"b@dst.test": evil})) as server, \
            relay_to(place, server, event_log_file="events.json",
                     transport_maps=f"inline:{{ src.test=smtp:[127.0.0.1]:{back.port} }}") as p:
        queue_id = p.send("a@src.test", ["b@dst.test"], CONTENT)
        notice = back.wait(1)[0].content
        p.wait_log(f"{queue_id}: removed$")
        for text in (p.log(), p._read("events.json"), p.ctl("trace", queue_id),
                     notice.decode("ascii")):
            assert "owned" in text
            assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", text), repr(text)
        # the event log keeps what was said, escaped; the log shows one line of it
        said = [e for e in p.events() if e.get("id") == queue_id and "owned" in json.dumps(e)]
        assert said
        line = next(l for l in p.log().splitlines() if "owned" in l)
        assert f"{queue_id}: to=<b@dst.test>" in line


@pytest.mark.parametrize("pipelining", [True, False])
def test_B45_421_in_mid_RCPT(place, pipelining):
    """Those after the 421 are tried again, those refused before it bounce, and
    nobody gets the message twice."""
    keywords = ("PIPELINING",) if pipelining else ()

    def busy(c):
        c.mail_session(*keywords, replies={"b@dst.test": "550 5.1.1 nobody",
                                           "c@dst.test": "421 4.3.2 closing"})
        assert not c.content, "content after the 421"

    with Sink() as back, \
            Script(busy, lambda c: c.mail_session(*keywords)) as server, \
            relay_to(place, server,
                     transport_maps=f"inline:{{ src.test=smtp:[127.0.0.1]:{back.port} }}") as p:
        queue_id = p.send("a@src.test", [f"{x}@dst.test" for x in "abcd"], CONTENT)
        notice = back.wait(1)[0].content
        assert b"b@dst.test" in notice and b"c@dst.test" not in notice
        p.wait_log(f"{queue_id}: removed$")
        sent = re.findall(rf"{queue_id}: to=<(.)@dst.test>.*status=sent", p.log())
        assert sorted(sent) == ["a", "c", "d"]


def test_B46_success_before_the_dot_is_no_delivery(place):
    def early(c):
        c.hello()
        for verb in ("MAIL", "RCPT"):
            c.expect(verb)
            c.send("250 ok")
        c.expect("DATA")
        c.send("354 go", "250 done")
        c.line()
    with Script(early, lambda c: c.mail_session()) as server, relay_to(place, server) as p:
        queue_id = p.send("a@src.test", ["b@dst.test"], CONTENT)
        p.wait_log(rf"{queue_id}: to=<b@dst.test>, .*status=deferred ")
        p.wait_log(rf"{queue_id}: to=<b@dst.test>, .*status=sent ")
        assert server.connections[-1].content.endswith(CONTENT)


def take_and(end):
    """Takes a message with 250, then ends the connection in a bad way."""
    def handler(c):
        c.hello()
        for verb in ("MAIL", "RCPT"):
            c.expect(verb)
            c.send("250 ok")
        c.expect("DATA")
        c.send("354 go")
        c.until_dot()
        c.send("250 2.0.0 taken")
        end(c)
    return handler


@pytest.mark.parametrize("end", ["F37_reset", "F39_drops_on_QUIT"])
def test_F37_F39_taken_is_delivered_once(place, end):
    def drop(c):
        if end.startswith("F39"):
            c.expect("QUIT")
        else:
            c.reset()
    with Script(take_and(drop)) as server, relay_to(place, server) as p:
        queue_id = p.send("a@src.test", ["b@dst.test"], CONTENT)
        p.wait_log(rf"{queue_id}: to=<b@dst.test>, .*status=sent \(250 2.0.0 taken\)")
        p.wait_log(f"{queue_id}: removed$")
        assert len(server.connections) == 1


def hold_at(stage, held):
    """Answers up to `stage`, then keeps silent until the relay leaves."""
    def handler(c):
        c.hello()
        for verb, reply in (("MAIL", "250 ok"), ("RCPT", "250 ok"), ("DATA", "354 go")):
            c.expect(verb)
            if verb == stage:
                break
            c.send(reply)
        else:
            c.until_dot()
        held.append(stage)
        try:
            c.line()
        except Hangup:
            pass
    return handler


def waits(p, queue_id):
    """Seconds from a message's arrival to its next attempt."""
    (listed,) = [json.loads(l) for l in p.ctl("queue", "list", "--json", queue_id).splitlines()
                 if "recipients" in l]
    return listed["next"] - listed["arrival"]


def test_F36_silence_after_the_dot_defers(place):
    held = []
    with Script(hold_at("dot", held)) as server, \
            relay_to(place, server, smtp_data_done_timeout="1s") as p:
        queue_id = p.send("a@src.test", ["b@dst.test"], CONTENT)
        p.wait_log(rf"{queue_id}: to=<b@dst.test>, .*dsn=4.4.2, status=deferred "
                   r"\(conversation with 127.0.0.1\[127.0.0.1\] timed out while .*end of data")
        # it may have been delivered: the next attempt waits longer than the back-off
        assert waits(p, queue_id) >= 55


def test_F35_slow_reader_harms_its_own_mail_only(place):
    with Sink() as quick:
        def slow(c):
            c.hello()
            for verb in ("MAIL", "RCPT"):
                c.expect(verb)
                c.send("250 ok")
            c.expect("DATA")
            c.send("354 go")
            wait_until(lambda: done, 60, "the deadline")
        done = []
        with Script(slow) as server, Postern(
                place, smtp_data_xfer_timeout="2s", **FAST,
                transport_maps="inline:{ slow.test=smtp:[127.0.0.1]:%d, quick.test=smtp:"
                               "[127.0.0.1]:%d }" % (server.port, quick.port)) as p:
            late = p.send("a@src.test", ["b@slow.test"], CONTENT + b"x" * 70 + b"\r\n" * 9000000)
            wait_until(lambda: server.connections, 20, "the slow connection")
            for i in range(50):
                p.send("a@src.test", [f"r{i}@quick.test"], CONTENT)
            quick.wait(50, 20)
            assert f"{late}: to=" not in p.log(), "the slow one should still be under way"
            p.wait_log(rf"{late}: to=<b@slow.test>, .*dsn=4.4.2, status=deferred ")
            done.append(True)


# ---- processes that die or stop ---------------------------------------------------


@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA"])
def test_F12_relay_killed_before_the_dot_is_no_duplicate(place, stage):
    held = []
    with Script(hold_at(stage, held), lambda c: c.mail_session()) as server, \
            relay_to(place, server, minimal_backoff_time="300s", maximal_backoff_time="300s") as p:
        queue_id = p.send("a@src.test", ["b@dst.test"], CONTENT)
        wait_until(lambda: held, 20, "the session at its stage")
        (pid,) = p.pids("relay")
        os.kill(pid, signal.SIGKILL)
        # at once: the back-off is 300 s
        p.wait_log(rf"{queue_id}: to=<b@dst.test>, .*status=sent ", 20)
        assert [bool(c.content) for c in server.connections] == [False, True]


def test_F13_relay_killed_after_the_dot_waits(place):
    held = []
    with Script(hold_at("dot", held), lambda c: c.mail_session()) as server, \
            relay_to(place, server) as p:
        queue_id = p.send("a@src.test", ["b@dst.test"], CONTENT)
        wait_until(lambda: held, 20, "the end of data")
        (pid,) = p.pids("relay")
        os.kill(pid, signal.SIGKILL)
        p.wait_log(f"{queue_id}: possible duplicate: .* tried again in 60s")
        assert waits(p, queue_id) >= 55
        assert len(server.connections) == 1


def test_F08_qmgr_killed_after_handing_out_sends_again(place):
    held = []
    with Script(hold_at("dot", held), lambda c: c.mail_session()) as server, \
            relay_to(place, server) as p:
        queue_id = p.send("a@src.test", ["b@dst.test"], CONTENT)
        wait_until(lambda: held, 20, "the end of data")
        (pid,) = p.pids("qmgr")
        os.kill(pid, signal.SIGKILL)
        p.wait_log(rf"{queue_id}: to=<b@dst.test>, .*status=sent ", 90)
        p.wait_log(f"{queue_id}: removed$")
        assert len(server.connections) == 2 and server.connections[1].content


@pytest.mark.parametrize("size", [100, 300000])
def test_F01_F02_smtpd_killed_before_the_end_leaves_nothing(place, size):
    with Sink() as sink, relay_to(place, sink) as p:
        sock, file = raw(p)
        if size > 100:
            start_data(sock, file, CONTENT + (b"x" * 78 + b"\r\n") * (size // 80))
            wait_until(lambda: p.spool_files("tmp"), 20, "a large message's file")
        (pid,) = p.pids("smtpd")
        os.kill(pid, signal.SIGKILL)
        assert nothing_more(file)
        file.close()
        sock.close()
        wait_until(lambda: not p.spool_files("tmp"), 20, "an empty tmp/")
        wait_until(p._answers, 20, "a new smtpd")
        p.send("a@src.test", ["last@dst.test"], CONTENT)
        sink.wait(1)
        wait_empty(p)
        assert recipients(sink) == ["last@dst.test"]


def test_F03_smtpd_killed_after_COMMIT_is_delivered(place):
    """qmgr stands still while smtpd commits and dies."""
    with Sink() as sink, relay_to(place, sink) as p:
        sock, file = raw(p)
        (qmgr,), (smtpd,) = p.pids("qmgr"), p.pids("smtpd")
        os.kill(qmgr, signal.SIGSTOP)
        start_data(sock, file, CONTENT + b".\r\n")
        p.wait_log("message-id=<case@src.test>")  # written after COMMIT was sent
        os.kill(smtpd, signal.SIGKILL)
        assert nothing_more(file)
        os.kill(qmgr, signal.SIGCONT)
        sink.wait(1)
        wait_empty(p)
        assert recipients(sink) == ["b@dst.test"]
        sock.close()


@pytest.mark.parametrize("service", ["smtpd", "qmgr", "relay", "resolve", "bounce"])
def test_F18_any_stopped_service_is_ended_by_the_watchdog(place, service):
    with Sink() as sink, relay_to(place, sink, service_watchdog_timeout="2s") as p:
        p.send("a@src.test", ["first@dst.test"], CONTENT)
        sink.wait(1)
        (pid,) = p.pids(service)
        os.kill(pid, signal.SIGSTOP)
        p.wait_log(rf"\(process {pid}\) does not respond", 30)
        wait_until(lambda: p.pids(service) not in ([], [pid]), 30, "a replacement")
        wait_until(p._answers, 20, "a greeting")

        def taken():
            try:
                return p.send("a@src.test", ["last@dst.test"], CONTENT)
            except (AssertionError, OSError, smtplib.SMTPException):
                return None
        wait_until(taken, 20, "a 250")
        wait_until(lambda: "last@dst.test" in recipients(sink), 30, "the delivery")


def test_F44_many_reloads_under_load_drop_no_session(place):
    failures, sent, stop = [], [], threading.Event()

    def load(p, number):
        try:
            with p.client() as c:
                c.ehlo()
                while not stop.is_set():
                    recipient = f"r{number}-{len(sent)}@dst.test"
                    c.sendmail("a@src.test", [recipient], CONTENT)
                    sent.append(recipient)
        except (OSError, smtplib.SMTPException) as e:
            failures.append(repr(e))

    with Sink() as sink, relay_to(place, sink) as p:
        threads = [threading.Thread(target=load, args=(p, n)) for n in range(4)]
        for t in threads:
            t.start()
        for _ in range(3):
            old, count = p.pids("smtpd"), len(sent)
            p.ctl("reload")
            wait_until(lambda: set(p.pids("smtpd")) - set(old), 20, "a new smtpd")
            wait_until(lambda: len(sent) > count + 40 or failures, 20, "messages afterwards")
        stop.set()
        for t in threads:
            t.join()
        assert not failures
        wait_until(lambda: set(recipients(sink)) >= set(sent), 60, "all deliveries")
        wait_empty(p)
        assert len(recipients(sink)) == len(sent)


def test_F17_services_finish_what_they_had_begun_when_master_is_killed(place):
    """A client that is in the middle of its message, a server that has not answered yet."""
    held, over = [], []

    def late(c):
        c.hello()
        for verb, reply in (("MAIL", "250 ok"), ("RCPT", "250 ok"), ("DATA", "354 go")):
            c.expect(verb)
            c.send(reply)
        c.until_dot()
        held.append(True)
        wait_until(lambda: over, 30, "the kill")
        c.send("250 2.0.0 taken")
    with Script(late, lambda c: c.mail_session()) as server, relay_to(place, server) as p:
        first = p.send("a@src.test", ["first@dst.test"], CONTENT)
        wait_until(lambda: held, 20, "the end of data")
        sock, file = raw(p)
        start_data(sock, file, CONTENT[:20])
        pids = p.pids()
        p.process.kill()
        p.process.wait()
        sock.sendall(CONTENT[20:] + b".\r\n")
        second = file.readline().decode()
        assert second.startswith("250 2.0.0 Ok: queued as "), second
        over.append(True)
        p.wait_log(rf"{first}: removed$")
        sock.close()
        file.close()
        wait_until(lambda: not any(os.path.exists(f"/proc/{x}") for x in pids), 30,
                   "the services' end")
        p.process = None
        p.start()
        p.wait_log(rf"{second.split()[-1]}: to=<b@dst.test>, .*status=sent ", 90)
        wait_empty(p)


def test_F33_the_queue_holds_while_resolve_is_dead(place):
    """It dies again and again: mail is taken and waits, nothing bounces, nobody else
    dies of it; when it lives all is delivered."""
    dns = DnsServer()
    dns.add("dst.test", "MX", "10 mx.test")
    dns.add("mx.test", "A", "127.0.0.1")
    dns.silent("dst.test", "MX")
    try:
        with Sink() as sink, Postern(place, resolver_nameservers=dns.address,
                                     smtp_tcp_port=str(sink.port), resolver_timeout="30s",
                                     resolver_permit_networks="127.0.0.0/8", **FAST) as p:
            others = {s: p.pids(s) for s in ("smtpd", "qmgr", "relay", "bounce")}
            ids = []
            for i in range(20):
                ids.append(p.send("a@src.test", [f"r{i}@dst.test"], CONTENT))
                if i % 5 == 4:
                    (pid,) = wait_until(lambda: p.pids("resolve"), 60, "resolve")
                    os.kill(pid, signal.SIGKILL)
                    p.wait_log(rf"resolve \(process {pid}\) was ended by signal 9")
            wait_until(lambda: {os.path.basename(f) for f in p.spool_files("new")} == set(ids), 10,
                       "a file for each")
            assert p.ctl("queue", "list", "--json").count('"id"') == 20
            assert not re.search("status=(bounced|sent)", p.log())
            dns.heal("dst.test", "MX")
            wait_until(lambda: len(sink.messages) == 20, 60, "all deliveries")
            wait_empty(p)
            assert len(set(recipients(sink))) == len(recipients(sink)) == 20
            assert {s: p.pids(s) for s in others} == others
    finally:
        dns.stop()


def test_F43_a_log_that_nobody_reads_blocks_no_mail(place):
    """A pipe that is full takes no more lines: mail flows, and when somebody reads again
    the log says how many are missing."""
    fifo = os.path.join(place, "log.fifo")
    os.mkfifo(fifo, 0o666)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with Sink() as sink, relay_to(place, sink, maillog_file=fifo) as p:
            with p.client() as c:
                for i in range(1000):
                    c.sendmail("a@src.test", [f"r{i}@dst.test"], CONTENT)
            wait_until(lambda: len(sink.messages) == 1000, 60, "all deliveries")
            wait_empty(p)
            text = b""

            def lines_that_say_it():
                nonlocal text
                try:
                    text += os.read(reader, 1 << 20)
                except BlockingIOError:
                    pass
                p.send("a@src.test", ["more@dst.test"], CONTENT)
                return re.search(rb"warning: \d+ log lines dropped", text)
            wait_until(lines_that_say_it, 20, "a line about those that are missing")
            assert text.count(b": removed\n") < 1000, "the pipe was never full"
    finally:
        os.close(reader)


# ---- DNS ----------------------------------------------------------------------------


def test_F32_dead_DNS_defers_without_a_storm_of_lookups(place):
    dns = DnsServer()
    dns.servfail("dead.test")
    try:
        with Postern(place, resolver_nameservers=dns.address,
                     resolver_permit_networks="127.0.0.0/8", **FAST) as p:
            for i in range(100):
                p.send("a@src.test", [f"r{i}@dead.test"], CONTENT)

            def rounds():
                """How often the message that was tried least has been deferred."""
                tried = re.findall(r"to=<(r\d+)@dead.test>.*status=deferred", p.log())
                return min(tried.count(f"r{i}") for i in range(100))
            wait_until(lambda: rounds() >= 3, 30, "three deferrals of each message")
            asked = dns.asked("dead.test")
            # one lookup: the resolver library asks several times before it gives up
            assert 0 < asked <= 10, f"{asked} queries for 300 attempts"
            assert "bounced" not in p.log()
            wait_until(lambda: len(p.spool_files("new")) == 100, 10, "a file for each")
    finally:
        dns.stop()


def test_B62_B63_B64_B66_verdicts_of_DNS_reach_the_sender(place):
    """What is final bounces at once with its own code; what is not stays queued."""
    dns, final = DnsServer(), {"null.test": b"5.1.10", "missing.test": b"5.1.2",
                               "inward.test": b"5.4.6"}
    dns.add("null.test", "MX", "0 .")
    dns.add("inward.test", "MX", "10 mx.inward.test")
    dns.add("mx.inward.test", "A", "10.0.0.1")
    dns.servfail("dead.test")
    for i in range(50):
        dns.add(f"c{i}.chain.test", "CNAME", f"c{i + 1}.chain.test")
    dns.add("c50.chain.test", "A", "127.0.0.1")
    try:
        with Sink() as back, Postern(
                place, resolver_nameservers=dns.address, resolver_permit_networks="127.0.0.0/8",
                transport_maps=f"inline:{{ src.test=smtp:[127.0.0.1]:{back.port} }}", **FAST) as p:
            for domain in final:
                p.send(f"{domain}@src.test", [f"b@{domain}"], CONTENT)
            waiting = [p.send("a@src.test", [f"b@{d}"], CONTENT)
                       for d in ("dead.test", "c0.chain.test")]
            notices = {m.recipients[0].split("@")[0]: m.content for m in back.wait(3)}
            for domain, status in final.items():
                assert b"Status: " + status in notices[domain], domain
            for queue_id in waiting:
                p.wait_log(rf"{queue_id}: to=.*dsn=4\.\d\.\d+, status=deferred ")
            wait_until(lambda: {os.path.basename(f) for f in p.spool_files("new")} == set(waiting),
                       10, "a file for each that waits, and for no other")
    finally:
        dns.stop()
