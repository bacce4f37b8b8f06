"""relay: what goes wrong at the other end."""
import os
import socket
import threading

import pytest
from postern import free_port, wait_until
from relay_rig import (CONNECT, CONTENT, DATA, DEFERRED, DOT, EHLO, FAILED, GREETING, LMTP, MAIL,
                       MESSAGE, RCPT, SENT, SITE, Hangup, Relay, Script, content_file, only,
                       plain, statuses)

# ---- which server ------------------------------------------------------------


def test_next_address_after_a_refused_connection():
    with Script(plain()) as server, Relay() as relay:
        relay.deliver([free_port(), free_port(), server], ["r@dst.test"])
        result = relay.result()
        assert statuses(result) == [SENT] and result.host == b"mx2.test"


@pytest.mark.parametrize("greeting", ["421 busy", "450 4.3.2 busy", "554 5.7.1 go away"])
def test_next_server_after_a_refusing_greeting(greeting):
    with Script(lambda c: c.send(greeting)) as first, Script(plain()) as second, Relay() as relay:
        relay.deliver([first, second], ["r@dst.test"])
        assert statuses(relay.result()) == [SENT]


def test_next_server_after_a_refused_ehlo():
    def refuses(c):
        c.send("220 peer")
        c.expect("EHLO")
        c.send("450 not now")
    with Script(refuses) as first, Script(plain()) as second, Relay() as relay:
        relay.deliver([first, second], ["r@dst.test"])
        assert statuses(relay.result()) == [SENT]


def test_all_servers_refuse():
    def refuses(c):
        c.send("554 5.7.1 your address is listed")
        c.expect("QUIT")
    with Script(refuses) as server, Relay() as relay:
        relay.deliver([server, server], ["a@dst.test", "b@dst.test"])
        result = relay.result()
        assert statuses(result) == [DEFERRED] * 2 and result.scope == SITE
        outcome = result.outcomes[0]
        assert (outcome.code, outcome.enhanced, outcome.local) == (554, b"4.7.1", 0)
        assert (outcome.stage, outcome.text) == (GREETING, b"5.7.1 your address is listed")


def test_a_server_that_serves_has_enough_when_it_drops_one_more():
    """No other server is asked then, where qmgr knows that the destination works."""
    busy, go = threading.Event(), threading.Event()

    def slow(c):
        c.hello()
        c.expect("MAIL")
        busy.set()
        assert go.wait(20)
        c.send("421 that is all")
    with Script(slow, lambda c: None) as first, Script(plain()) as second, Relay() as relay:
        relay.deliver(first, ["a@dst.test"])
        assert busy.wait(20)
        relay.deliver([first, second], ["b@dst.test"], greetings=1)
        result = relay.result()
        outcome = only(result)
        assert (outcome.status, outcome.stage, outcome.local) == (DEFERRED, GREETING, 1)
        assert result.scope == SITE and not second.connections
        relay.deliver([first, second], ["c@dst.test"])  # it is not known
        assert statuses(relay.result()) == [SENT]
        assert len(first.connections) == 3  # nor is it tried last
        go.set()
        assert statuses(relay.result()) == [DEFERRED]
        relay.deliver([first, second], ["d@dst.test"], greetings=1)  # it serves nobody now
        assert statuses(relay.result()) == [SENT]
        assert len(first.connections) == 4 and len(second.connections) == 2


def test_nobody_answers():
    port = free_port()
    with Relay() as relay:
        relay.deliver([port], ["r@dst.test"])
        result = relay.result()
        outcome = only(result)
        assert (outcome.status, outcome.stage, outcome.local) == (DEFERRED, CONNECT, 1)
        assert outcome.text == f"connect to mx0.test[127.0.0.1]:{port}: Connection refused".encode()
        assert result.scope == SITE and outcome.enhanced == b"4.4.1"
        relay.deliver([], ["r@dst.test"])
        assert statuses(relay.result()) == [DEFERRED]


def test_limits_of_addresses_and_sessions():
    with Script(lambda c: c.send("450 busy")) as busy, Script(plain()) as good, \
            Relay(smtp_mx_session_limit="2", smtp_mx_address_limit="3") as relay:
        relay.deliver([busy, busy, good], ["r@dst.test"])
        assert statuses(relay.result()) == [DEFERRED]
        relay.deliver([free_port(), free_port(), free_port(), good], ["r@dst.test"])
        assert statuses(relay.result()) == [DEFERRED]
        relay.deliver([free_port(), busy, good], ["r@dst.test"])
        assert statuses(relay.result()) == [SENT]


# ---- replies that are none -----------------------------------------------------


BAD_REPLIES = {
    "B40_too_many_lines": b"250-x\r\n" * 200 + b"250 x\r\n",
    "B40_endless": b"250-" + b"x" * 70000,
    "B41_two_digits": b"25\r\n",
    "B41_999": b"999 what\r\n",
    "B41_NUL": b"250 o\0k\r\n",
    "B41_8bit": b"250 \xff\r\n",
    "B41_words": b"hello there\r\n",
    "B42_mixed": b"250-x\r\n550 y\r\n",
}


@pytest.mark.parametrize("name", BAD_REPLIES)
@pytest.mark.parametrize("stage", [MAIL, RCPT, DATA, DOT])
def test_B40_B41_B42_malformed_reply_defers(name, stage):
    def handler(c):
        c.hello()
        for at, verb in ((MAIL, "MAIL"), (RCPT, "RCPT"), (DATA, "DATA")):
            c.expect(verb)
            if at == stage:
                break
            c.send("354 go" if at == DATA else "250 ok")
        if stage == DOT:
            c.until_dot()
        c.sock.sendall(BAD_REPLIES[name])
        c.line()
    with Script(handler) as server, Relay() as relay:
        relay.deliver(server, ["r@dst.test"])
        result = relay.result()
        outcome = only(result)
        assert (outcome.status, outcome.stage, outcome.local) == (DEFERRED, stage, 1)
        assert result.scope == SITE and result.after_dot == (stage == DOT)


def test_B41_code_without_text_is_a_reply():
    with Script(plain(dot="250")) as server, Relay() as relay:
        relay.deliver(server, ["r@dst.test"])
        assert statuses(relay.result()) == [SENT]


def test_B43_last_line_without_separator():
    with Script(plain(dot=["250-one", "250"])) as server, Relay() as relay:
        relay.deliver(server, ["r@dst.test"])
        assert statuses(relay.result()) == [SENT]


def test_B44_control_bytes_reach_qmgr_raw():
    with Script(plain(dot="550 5.7.1 \x1b[31mred\x1b[0m")) as server, Relay() as relay:
        relay.deliver(server, ["r@dst.test"])
        outcome = only(relay.result())
        assert (outcome.status, outcome.text) == (FAILED, b"5.7.1 \x1b[31mred\x1b[0m")


@pytest.mark.parametrize("keywords", [(), ("PIPELINING",)])
def test_B45_421_among_recipients(keywords):
    replies = {"b@dst.test": "550 5.1.1 nobody", "c@dst.test": "421 4.3.2 shutting down"}
    with Script(plain(*keywords, replies=replies)) as server, Relay() as relay:
        relay.deliver(server, [f"{x}@dst.test" for x in "abcd"])
        result = relay.result()
        assert statuses(result) == [DEFERRED, FAILED, DEFERRED, DEFERRED]
        assert result.scope == SITE and result.after_dot == 0
        assert result.outcomes[0].code == 421


@pytest.mark.parametrize("early", ["250 done", "354 go", "250"])
def test_B46_success_before_the_dot(early):
    body = CONTENT + b"x" * 70 + b"\r\n"

    def handler(c):
        c.hello("PIPELINING")
        for verb in ("MAIL", "RCPT", "DATA"):
            c.expect(verb)
        c.send("250 ok", "250 ok", "354 go", early)
        c.line()
    with Script(handler) as server, Relay() as relay:
        relay.deliver(server, ["r@dst.test"], body)
        result = relay.result()
        assert statuses(result) == [DEFERRED] and result.after_dot == 0


def test_B46_success_in_mid_content():
    def handler(c):
        c.hello()
        for verb in ("MAIL", "RCPT"):
            c.expect(verb)
            c.send("250 ok")
        c.expect("DATA")
        c.send("354 go")
        c.exactly(100000)
        c.send("250 done")
        while c.sock.recv(65536):
            pass
    fd = content_file(b"x" * 998 + b"\r\n" * 100000 + b"y" * 30000000)
    with Script(handler) as server, Relay() as relay:
        relay.deliver(server, ["r@dst.test"], fd=fd, body_len=30000000)
        os.close(fd)
        result = relay.result()
        assert statuses(result) == [DEFERRED] and result.after_dot == 0


def test_refusal_in_mid_content_is_believed():
    def handler(c):
        c.hello()
        for verb in ("MAIL", "RCPT"):
            c.expect(verb)
            c.send("250 ok")
        c.expect("DATA")
        c.send("354 go")
        c.exactly(100000)
        c.send("552 5.3.4 too big")
        try:
            while c.sock.recv(65536):
                pass
        except ConnectionError:
            pass
    fd = content_file(b"y" * 30000000)
    with Script(handler) as server, Relay() as relay:
        relay.deliver(server, ["r@dst.test"], fd=fd, body_len=30000000)
        os.close(fd)
        outcome = only(relay.result())
        assert (outcome.status, outcome.code) == (FAILED, 552)


def test_B47_ehlo_with_too_many_keywords():
    def handler(c):
        c.send("220 peer")
        c.expect("EHLO")
        c.send(*[f"250-KEYWORD{i}" for i in range(10000)], "250 END")
        c.line()
    with Script(handler) as first, Script(plain()) as second, Relay() as relay:
        relay.deliver([first, second], ["r@dst.test"])
        assert statuses(relay.result()) == [SENT]


def test_reply_ahead_of_its_command():
    def handler(c):
        c.send("220 peer", "250 peer")
        c.line()
    with Script(handler) as server, Relay() as relay:
        relay.deliver(server, ["r@dst.test"])
        outcome = only(relay.result())
        assert (outcome.status, outcome.stage) == (DEFERRED, EHLO)
        assert outcome.text.startswith(b"mx0.test[127.0.0.1] sent ")


def test_reply_byte_by_byte():
    def handler(c):
        for byte in b"220-peer\r\n220 ready\r\n":
            c.sock.sendall(bytes([byte]))
        c.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        c.expect("EHLO")
        c.send("250 peer")
        for verb in ("MAIL", "RCPT"):
            c.expect(verb)
            for byte in b"250-2.1.0 first\r\n250 2.1.0 second\r\n":
                c.sock.sendall(bytes([byte]))
        c.expect("DATA")
        c.send("354 go")
        c.until_dot()
        for byte in b"250-2.0.0 first\r\n250 2.0.0 second\r\n":
            c.sock.sendall(bytes([byte]))
        c.line()
    with Script(handler) as server, Relay() as relay:
        relay.deliver(server, ["r@dst.test"])
        outcome = only(relay.result())
        assert (outcome.status, outcome.text) == (SENT, b"2.0.0 first 2.0.0 second")


# ---- connections that end -------------------------------------------------------


@pytest.mark.parametrize("stage,phrase", [(MAIL, b"MAIL FROM"), (RCPT, b"RCPT TO"),
                                          (DATA, b"DATA"), (DOT, b"end of data")])
def test_F12_F13_lost_connection(stage, phrase):
    def handler(c):
        c.hello()
        for at, verb in ((MAIL, "MAIL"), (RCPT, "RCPT"), (DATA, "DATA")):
            c.expect(verb)
            if at == stage:
                return
            c.send("354 go" if at == DATA else "250 ok")
        c.until_dot()
    with Script(handler) as server, Relay() as relay:
        relay.deliver(server, ["a@dst.test", "b@dst.test"] if stage == MAIL else ["a@dst.test"])
        result = relay.result()
        outcome = result.outcomes[0]
        assert (outcome.status, outcome.stage, outcome.enhanced) == (DEFERRED, stage, b"4.4.2")
        assert outcome.text.startswith(b"lost connection with mx0.test[127.0.0.1] while ")
        assert phrase in outcome.text
        assert result.after_dot == (stage == DOT) and result.scope == SITE
        assert len(server.connections) == 1


def test_F13_content_cut_before_the_dot_is_not_in_doubt():
    def handler(c):
        c.hello()
        for verb in ("MAIL", "RCPT"):
            c.expect(verb)
            c.send("250 ok")
        c.expect("DATA")
        c.send("354 go")
        c.exactly(100000)
        c.reset()
    fd = content_file(b"y" * 30000000)
    with Script(handler) as server, Relay() as relay:
        relay.deliver(server, ["r@dst.test"], fd=fd, body_len=30000000)
        os.close(fd)
        result = relay.result()
        assert statuses(result) == [DEFERRED] and result.after_dot == 0


@pytest.mark.parametrize("size", [100, 30000000])
@pytest.mark.parametrize("keywords", [(), ("CHUNKING",)])
def test_F12_F13_the_end_of_data_is_announced_before_it_is_sent(size, keywords):
    def handler(c):
        c.hello(*keywords)
        for verb in ("MAIL", "RCPT"):
            c.expect(verb)
            c.send("250 ok")
        if not keywords:
            c.expect("DATA")
            c.send("354 go")
        c.exactly(size // 2)
        try:
            early.append(relay.qmgr.receive(timeout=0.5 if size > 1000 else 10))
            if keywords:
                c.exactly(size - size // 2)
            else:
                c.until_dot()
            c.send("250 ok")
        except Hangup:
            pass
    early = []
    fd = content_file(b"y" * size)
    with Script(handler, receive_buffer=1 << 20) as server, Relay() as relay:
        job = relay.deliver(server, ["r@dst.test"], fd=fd, body_len=size)
        os.close(fd)
        wait_until(lambda: early, 20, "the middle of the content")
        if size < 1000:
            assert early[0].name == "ipc_dot" and early[0].job == job
        else:
            assert early[0] is None
            assert relay.qmgr.expect("ipc_dot").job == job
        assert statuses(relay.result()) == [SENT]


@pytest.mark.parametrize("stage", [CONNECT, GREETING, EHLO, MAIL, RCPT, DATA, DOT])
def test_F36_timeouts(stage):
    limits = {GREETING: "greeting", EHLO: "helo", MAIL: "mail", RCPT: "rcpt", DATA: "data_init",
              DOT: "data_done"}
    if stage == CONNECT:
        with Relay(smtp_connect_timeout="1s") as relay, socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            port = full.getsockname()[1]
            waiting = [socket.socket() for _ in range(3)]
            for s in waiting:
                s.setblocking(False)
                s.connect_ex(("127.0.0.1", port))
            relay.deliver([port], ["r@dst.test"])
            outcome = only(relay.result())
            for s in waiting:
                s.close()
            assert (outcome.stage, outcome.enhanced) == (CONNECT, b"4.4.1")
            assert b"timed out" in outcome.text
        return

    def handler(c):
        if stage == GREETING:
            c.line()
        c.send("220 peer")
        c.expect("EHLO")
        if stage == EHLO:
            c.line()
        c.send("250 peer")
        for at, verb in ((MAIL, "MAIL"), (RCPT, "RCPT"), (DATA, "DATA")):
            c.expect(verb)
            if at == stage:
                c.line()
            c.send("354 go" if at == DATA else "250 ok")
        c.until_dot()
        c.line()
    with Script(handler) as server, Relay(**{f"smtp_{limits[stage]}_timeout": "1s"}) as relay:
        relay.deliver(server, ["r@dst.test"])
        result = relay.result()
        outcome = only(result)
        assert (outcome.status, outcome.stage, outcome.local) == (DEFERRED, stage, 1)
        assert outcome.text.startswith(b"conversation with mx0.test[127.0.0.1] timed out while ")
        assert result.after_dot == (stage == DOT)


def test_F35_reads_slowly():
    def handler(c):
        c.hello()
        for verb in ("MAIL", "RCPT"):
            c.expect(verb)
            c.send("250 ok")
        c.expect("DATA")
        c.send("354 go")
        wait_until(lambda: done, 20, "the deadline")
    done = []
    fd = content_file(b"y" * 30000000)
    with Script(handler, plain()) as server, Relay(smtp_data_xfer_timeout="1s") as relay:
        slow = relay.deliver(server, ["r@dst.test"], fd=fd, body_len=30000000)
        os.close(fd)
        wait_until(lambda: server.connections, 10, "the first connection")
        quick = relay.deliver(server, ["r@dst.test"])
        first, second = relay.result(), relay.result()
        done.append(True)
        assert (first.job, statuses(first)) == (quick, [SENT])
        assert (second.job, statuses(second), second.after_dot) == (slow, [DEFERRED], 0)


def test_total_time_of_a_transaction():
    def handler(c):
        c.hello()
        c.expect("MAIL")
        c.send("250 ok")
        c.line()
        c.line()
    with Script(handler) as server, Relay(smtp_transaction_time_limit="1s") as relay:
        relay.deliver(server, ["r@dst.test"])
        assert only(relay.result()).text.endswith(b"timed out while sending RCPT TO")


def test_the_answer_to_the_content_is_waited_for_beyond_that_time():
    """To leave before it comes would make a duplicate."""
    dot, over = [], []

    def patient(c):
        c.hello()
        for verb in ("MAIL", "RCPT"):
            c.expect(verb)
            c.send("250 ok")
        c.expect("DATA")
        c.send("354 go")
        c.until_dot()
        dot.append(True)
        wait_until(lambda: over, 20, "the other one's time-out")
        c.send("250 ok")
        c.expect("QUIT")

    def silent(c):
        c.hello()
        c.expect("MAIL")
        c.line()
    with Script(patient, silent) as server, Relay(smtp_transaction_time_limit="1s") as relay:
        first = relay.deliver(server, ["r@dst.test"])
        wait_until(lambda: dot, 20, "the end of data")
        second = relay.deliver(server, ["r@dst.test"])
        result = relay.result()
        assert (result.job, statuses(result)) == (second, [DEFERRED])
        over.append(True)
        result = relay.result()
        assert (result.job, statuses(result)) == (first, [SENT])


@pytest.mark.parametrize("end", ["reset", "close"])
def test_F37_F39_gone_after_its_250(end):
    def handler(c):
        c.hello()
        for verb in ("MAIL", "RCPT"):
            c.expect(verb)
            c.send("250 ok")
        c.expect("DATA")
        c.send("354 go")
        c.until_dot()
        c.send("250 2.0.0 taken")
        if end == "reset":
            c.expect("QUIT")
            c.reset()
    with Script(handler) as server, Relay() as relay:
        relay.deliver(server, ["r@dst.test"])
        result = relay.result()
        assert statuses(result) == [SENT] and result.after_dot == 0


def test_lmtp_lost_among_its_replies():
    def handler(c):
        c.hello(verb="LHLO")
        for verb in ("MAIL", "RCPT", "RCPT"):
            c.expect(verb)
            c.send("250 ok")
        c.expect("DATA")
        c.send("354 go")
        c.until_dot()
        c.send("250 first")
    with Script(handler) as server, Relay() as relay:
        relay.deliver(server, ["a@dst.test", "b@dst.test"], transport=LMTP)
        result = relay.result()
        assert statuses(result) == [SENT, DEFERRED] and result.after_dot == 1


def test_421_at_the_dot_is_an_answer():
    with Script(plain(dot="421 4.3.2 not now")) as server, Relay() as relay:
        relay.deliver(server, ["r@dst.test"])
        result = relay.result()
        assert statuses(result) == [DEFERRED] and result.after_dot == 0


def test_content_refused():
    for reply, status in (("554 5.6.0 spam", FAILED), ("451 4.3.0 later", DEFERRED)):
        with Script(plain(dot=reply)) as server, Relay() as relay:
            relay.deliver(server, ["r@dst.test"])
            result = relay.result()
            assert statuses(result) == [status] and result.scope == MESSAGE
            assert (result.outcomes[0].stage, result.after_dot) == (DOT, 0)
