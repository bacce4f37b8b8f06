"""relay: what is delivered, and how."""
import os
import socket
import subprocess

import pytest
from ipc import Broker
from postern import free_port, wait_until
from relay_rig import (CONTENT, DEFERRED, DOT, FAILED, FLAG_8BIT, FLAG_UTF8, LMTP, LOOPBACK,
                       MESSAGE, RCPT, RECIPIENT, SENT, SITE, Relay, Script, content_file, plain,
                       statuses)
from sink import Sink

TRICKY = b"Subject: dots\r\n\r\n.\r\n..\r\n.line\r\nend\r\n"

NO_CONNECTION = 4  # enum failure_scope


@pytest.mark.parametrize("keywords", [(), ("PIPELINING",), ("PIPELINING", "CHUNKING"),
                                      ("CHUNKING",)])
@pytest.mark.parametrize("large", [False, True])
def test_content_arrives_unchanged(keywords, large):
    body = TRICKY * (40000 if large else 1)
    with Script(plain(*keywords)) as server, Relay() as relay:
        fd = content_file(body, b"header of the spool file") if large else -1
        relay.deliver(server, ["r@dst.test"], body, prefix=b"Received: here\r\n", fd=fd,
                      body_at=24 if large else 0)
        result = relay.result()
        if large:
            os.close(fd)
        outcome = result.outcomes[0]
        assert (outcome.status, outcome.code, outcome.stage) == (SENT, 250, DOT)
        assert (outcome.enhanced, outcome.text) == (b"2.0.0", b"2.0.0 Ok: queued")
        assert (result.host, result.address) == (b"mx0.test", b"127.0.0.1")
        assert (result.port, result.use_count, result.after_dot) == (server.port, 1, 0)
        assert result.connect_us > 0 and result.transfer_us > 0
        assert 0 < result.reply_us < result.transfer_us  # of the envelope's commands alone
        assert server.connections[0].content == b"Received: here\r\n" + body
        used = {c.split()[0] for c in server.connections[0].commands}
        assert ("BDAT" in used) == ("CHUNKING" in keywords)


def test_content_without_a_last_line_end():
    with Script(plain()) as server, Relay() as relay:
        relay.deliver(server, ["r@dst.test"], b"Subject: x\r\n\r\nno end")
        assert statuses(relay.result()) == [SENT]
        assert server.connections[0].content == b"Subject: x\r\n\r\nno end\r\n"


def test_pipelined_commands_leave_in_one_write():
    def handler(c):
        c.hello("PIPELINING")
        assert c.sock.recv(65536) == (b"MAIL FROM:<s@src.test>\r\nRCPT TO:<a@dst.test>\r\n"
                                      b"RCPT TO:<b@dst.test>\r\nDATA\r\n")
        c.send("250 ok", "250 ok", "250 ok", "354 go")
        assert c.sock.recv(65536) == CONTENT + b".\r\n"
        c.send("250 done")
    with Script(handler) as server, Relay() as relay:
        relay.deliver(server, ["a@dst.test", "b@dst.test"])
        assert statuses(relay.result()) == [SENT, SENT]


def test_recipients_have_their_own_outcomes():
    replies = {"b@dst.test": "550 5.1.1 no such user", "c@dst.test": "450 4.2.1 later"}
    for keywords in ((), ("PIPELINING",), ("PIPELINING", "CHUNKING")):
        with Script(plain(*keywords, replies=replies)) as server, Relay() as relay:
            relay.deliver(server, ["a@dst.test", "b@dst.test", "c@dst.test"])
            result = relay.result()
            assert statuses(result) == [SENT, FAILED, DEFERRED]
            a, b, c = sorted(result.outcomes, key=lambda o: o.index)
            assert (b.code, b.enhanced, b.stage, b.local) == (550, b"5.1.1", RCPT, 0)
            assert b.text == b"5.1.1 no such user"
            assert (c.code, c.enhanced) == (450, b"4.2.1")
            assert result.scope == RECIPIENT
            assert server.connections[0].content == CONTENT


@pytest.mark.parametrize("keywords", [(), ("PIPELINING",), ("PIPELINING", "CHUNKING")])
def test_all_recipients_refused_then_the_session_goes_on(keywords):
    replies = {"no@dst.test": "550 5.1.1 no such user"}
    with Script(plain(*keywords, replies=replies, dot="250 ok")) as server, \
            Relay(smtp_connection_cache_time_limit="20s") as relay:
        relay.deliver(server, ["no@dst.test"])
        result = relay.result()
        assert statuses(result) == [FAILED] and result.scope == RECIPIENT
        relay.deliver(server, ["yes@dst.test"])
        result = relay.result()
        assert statuses(result) == [SENT] and result.use_count == 2
        assert len(server.connections) == 1
        relay.master.master.send("ipc_drain", seconds=5)
        relay.master.process.wait(20)


def test_mail_refused():
    for keywords in ((), ("PIPELINING",)):
        with Script(plain(*keywords, mail="550 5.7.1 not you")) as server, Relay() as relay:
            relay.deliver(server, ["a@dst.test", "b@dst.test"])
            result = relay.result()
            assert statuses(result) == [FAILED, FAILED] and result.scope == MESSAGE


def test_session_is_reused_and_counted():
    with Script(plain("PIPELINING")) as server, \
            Relay(smtp_connection_cache_time_limit="20s") as relay:
        for n in range(1, 4):
            relay.deliver(server, [f"r{n}@dst.test"])
            result = relay.result()
            assert statuses(result) == [SENT] and result.use_count == n
            assert (result.connect_us == 0) == (n > 1)
        relay.deliver(server, ["r@dst.test"], site="other.test")
        assert relay.result().use_count == 1
        relay.deliver(server, ["r@dst.test"], session_messages=3)
        assert relay.result().use_count == 1
        assert len(server.connections) == 3


def test_idle_session_says_quit():
    with Script(plain()) as server, Relay(smtp_connection_cache_time_limit="1s") as relay:
        relay.deliver(server, ["r@dst.test"])
        assert statuses(relay.result()) == [SENT]
        wait_until(lambda: server.connections[0].commands[-1] == "QUIT", 10, "QUIT")


def test_idle_session_that_was_closed_is_replaced():
    def once(c):
        c.hello("PIPELINING")
        for _ in range(2):
            for verb in ("MAIL", "RCPT", "DATA"):
                c.expect(verb)
            if len(c.commands) > 4:
                c.reset()
                return
            c.send("250 ok", "250 ok", "354 go")
            c.until_dot()
            c.send("250 ok")
    with Script(once, plain("PIPELINING")) as server, \
            Relay(smtp_connection_cache_time_limit="20s") as relay:
        relay.deliver(server, ["a@dst.test"])
        assert statuses(relay.result()) == [SENT]
        relay.deliver(server, ["b@dst.test"])
        result = relay.result()
        assert statuses(result) == [SENT] and result.use_count == 1
        assert len(server.connections) == 2


def test_limits_rcptmax_splits_over_one_session():
    with Script(plain("PIPELINING", "LIMITS RCPTMAX=2")) as server, Relay() as relay:
        relay.deliver(server, [f"r{i}@dst.test" for i in range(5)])
        assert statuses(relay.result()) == [SENT] * 5
        commands = server.connections[0].commands
        wait_until(lambda: commands[-1] == "QUIT", 10, "QUIT")
        assert [c.split()[0] for c in commands] == ["EHLO"] + ["MAIL", "RCPT", "RCPT", "DATA"] * 2 + \
            ["MAIL", "RCPT", "DATA", "QUIT"]


def test_limits_mailmax_goes_on_over_another_session():
    with Script(plain("LIMITS MAILMAX=1 RCPTMAX=1")) as server, Relay() as relay:
        relay.deliver(server, ["a@dst.test", "b@dst.test", "c@dst.test"])
        result = relay.result()
        assert statuses(result) == [SENT] * 3 and result.mail_max == 1
        assert len(server.connections) == 3


def test_what_began_over_an_open_connection_ends_over_another():
    """A job that may use open connections only has recipients left when its connection is
    used up: they are delivered, and none twice."""
    with Script(plain("LIMITS MAILMAX=2 RCPTMAX=1")) as server, \
            Relay(smtp_connection_cache_time_limit="20s") as relay:
        relay.deliver(server, ["a@dst.test"])
        assert statuses(relay.result()) == [SENT]
        relay.deliver(server, ["b@dst.test", "c@dst.test"], reuse_only=1)
        result = relay.result()
        assert statuses(result) == [SENT] * 2 and result.scope != NO_CONNECTION
        assert len(server.connections) == 2 and result.connections == 1


@pytest.mark.parametrize("reply", ["452 4.5.3 too many recipients", "452 4.3.1 Error: Too many recipients", "552 too many"])
def test_too_many_recipients_splits(reply):
    class Server:
        def __init__(self):
            self.count = 0

        def get(self, _, default):
            self.count += 1
            return reply if self.count == 3 else default
    with Script(plain("PIPELINING", replies=Server())) as server, Relay() as relay:
        relay.deliver(server, ["a@dst.test", "b@dst.test", "c@dst.test"])
        assert statuses(relay.result()) == [SENT] * 3
        assert sum(c.startswith("MAIL") for c in server.connections[0].commands) == 2


def test_552_to_the_only_recipient_is_temporary():
    with Script(plain(replies={"a@dst.test": "552 too many recipients"})) as server, \
            Relay() as relay:
        relay.deliver(server, ["a@dst.test"])
        outcome = relay.result().outcomes[0]
        assert (outcome.status, outcome.code) == (DEFERRED, 552)


def test_helo_fallback():
    def handler(c):
        c.send("220 old")
        c.expect("EHLO")
        c.send("502 what?")
        c.expect("HELO")
        c.send("250 old")
        for verb in ("MAIL", "RCPT"):
            assert "=" not in c.expect(verb)
            c.send("250 ok")
        c.expect("DATA")
        c.send("354 go")
        c.content = c.until_dot()
        c.send("250 ok")
    with Script(handler) as server, Relay() as relay:
        relay.deliver(server, ["r@dst.test"])
        assert statuses(relay.result()) == [SENT]


def test_parameters_are_passed_when_offered():
    recipients = [dict(index=7, address="r@dst.test", notify=6, orcpt="rfc822;o+x@dst.test")]
    options = dict(flags=FLAG_8BIT, ret=1, envid="a b+c")
    with Script(plain("SIZE 1000000", "8BITMIME", "DSN")) as server, Relay() as relay:
        relay.deliver(server, recipients, **options)
        result = relay.result()
        assert result.dsn == 1 and result.outcomes[0].index == 7
        _, mail, rcpt = server.connections[0].commands[:3]
        assert mail == (f"MAIL FROM:<s@src.test> SIZE={len(CONTENT)} BODY=8BITMIME RET=HDRS "
                        "ENVID=a+20b+2Bc")
        assert rcpt == "RCPT TO:<r@dst.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;o+2Bx@dst.test"
    with Script(plain()) as server, Relay() as relay:
        relay.deliver(server, recipients, **options)
        assert relay.result().dsn == 0
        assert server.connections[0].commands[1:3] == ["MAIL FROM:<s@src.test>",
                                                       "RCPT TO:<r@dst.test>"]


def test_larger_than_the_announced_size():
    with Script(plain("SIZE 20")) as server, Relay() as relay:
        relay.deliver(server, ["r@dst.test"])
        outcome = relay.result().outcomes[0]
        assert (outcome.status, outcome.enhanced, outcome.local) == (FAILED, b"5.3.4", 1)
        assert not any(c.startswith("MAIL") for c in server.connections[0].commands)


def test_8bit_needs_8bitmime_unless_it_is_7bit_in_truth():
    with Script(plain()) as server, Relay() as relay:
        relay.deliver(server, ["r@dst.test"], CONTENT, flags=FLAG_8BIT)
        assert statuses(relay.result()) == [SENT]
        relay.deliver(server, ["r@dst.test"], CONTENT + "ä\r\n".encode(), flags=FLAG_8BIT)
        assert relay.result().outcomes[0].enhanced == b"5.6.3"


def test_smtputf8():
    utf8 = "Subject: ä\r\n\r\nx\r\n".encode()
    with Script(plain("8BITMIME", "SMTPUTF8")) as server, Relay() as relay:
        relay.deliver(server, ["ü@dst.test"], utf8, flags=FLAG_8BIT | FLAG_UTF8)
        assert statuses(relay.result()) == [SENT]
        assert server.connections[0].commands[1].endswith(" BODY=8BITMIME SMTPUTF8")
    with Script(plain("8BITMIME")) as server, Relay() as relay:
        relay.deliver(server, ["r@dst.test"], utf8, flags=FLAG_8BIT | FLAG_UTF8)
        assert relay.result().outcomes[0].enhanced == b"5.6.7"
        relay.deliver(server, ["ü@dst.test", "r@dst.test"], CONTENT, flags=FLAG_UTF8)
        assert statuses(relay.result()) == [FAILED, SENT]


def test_keywords_that_are_not_wanted():
    with Script(plain("PIPELINING", "CHUNKING", "SIZE 10")) as server, \
            Relay(smtp_discard_ehlo_keywords="chunking, size") as relay:
        relay.deliver(server, ["r@dst.test"])
        assert statuses(relay.result()) == [SENT]
        assert "DATA" in server.connections[0].commands


def test_lmtp_answers_for_each_recipient():
    dot = ["250 2.0.0 a ok", "550 5.2.2 b is full", "450 4.2.1 c later"]
    replies = {"x@dst.test": "550 5.1.1 nobody"}
    names = ["a@dst.test", "x@dst.test", "b@dst.test", "c@dst.test"]
    for keywords in ((), ("PIPELINING",), ("PIPELINING", "CHUNKING")):
        with Script(plain(*keywords, verb="LHLO", dot=dot, replies=replies)) as server, \
                Relay() as relay:
            relay.deliver(server, names, transport=LMTP)
            result = relay.result()
            assert statuses(result) == [SENT, FAILED, FAILED, DEFERRED]
            assert result.outcomes[0].text == b"2.0.0 a ok"


def lmtp_target(path):
    return [dict(host="relay.test", address=path, port=0)]


def test_lmtp_over_a_unix_socket(place):
    """relay sees no files: master connects it."""
    path = os.path.join(place, "lmtp")
    with Script(plain(verb="LHLO"), path=path) as server, Relay() as relay:
        broker = Broker(relay.master, {f"unix:{path}": path})
        relay.deliver(lmtp_target(path), ["r@dst.test"], transport=LMTP)
        result = relay.result()
        assert statuses(result) == [SENT] and result.address == path.encode()
        assert server.connections[0].content == CONTENT and len(broker.asked) == 1


def test_lmtp_socket_that_master_refuses(place):
    with Relay() as relay:
        Broker(relay.master, {})
        relay.deliver(lmtp_target("/run/other"), ["r@dst.test"], transport=LMTP)
        result = relay.result()
        assert statuses(result) == [DEFERRED] and result.scope == SITE
        assert result.outcomes[0].text == b"connect to relay.test[/run/other]: not permitted"


def test_lmtp_socket_of_which_master_says_nothing(place):
    """The time-out of a connection holds; a socket that comes too late is closed."""
    path = os.path.join(place, "lmtp")
    heard = []
    with Script(lambda c: heard.append(c.sock.recv(10)), path=path) as server, \
            Relay(smtp_connect_timeout="1s") as relay:
        broker = Broker(relay.master, {f"unix:{path}": path}, silent=True)
        relay.deliver(lmtp_target(path), ["r@dst.test"], transport=LMTP)
        result = relay.result()
        assert statuses(result) == [DEFERRED] and b"timed out" in result.outcomes[0].text
        broker.answer(broker.asked[0])
        wait_until(lambda: heard == [b""], 10, "the end of the late connection")
        assert not server.errors


def test_source_address():
    with Script(plain()) as server, Relay() as relay:
        relay.deliver(server, ["r@dst.test"], source=b"\x7f\0\0\x09")
        assert statuses(relay.result()) == [SENT]
        assert server.peer[0] == "127.0.0.9"
    with Script(plain()) as server, Relay(smtp_bind_address="127.0.0.8") as relay:
        relay.deliver(server, ["r@dst.test"])
        assert statuses(relay.result()) == [SENT]
        assert server.peer[0] == "127.0.0.8"


def test_aiosmtpd_receives():
    with Sink() as sink, Relay() as relay:
        relay.deliver(sink.port, ["a@dst.test", "b@dst.test"], TRICKY)
        assert statuses(relay.result()) == [SENT, SENT]
        assert sink.wait(1)[0].content == TRICKY


def test_smtp_sink_receives_many():
    base = "/tmp/relay-bench/pkg/postfix"
    program = "/usr/sbin/smtp-sink"
    env = dict(os.environ)
    if not os.path.exists(program):
        program = base + program
        env["LD_LIBRARY_PATH"] = f"{base}/usr/lib/postfix:{base}/usr/lib/x86_64-linux-gnu"
    if not os.path.exists(program):
        pytest.skip("smtp-sink is not installed")
    port = free_port()
    process = subprocess.Popen([program, "-u", "nobody", f"127.0.0.1:{port}", "256"], env=env) \
        if os.getuid() == 0 else \
        subprocess.Popen([program, f"127.0.0.1:{port}", "256"], env=env)

    def listens():
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", port)) == 0
    try:
        wait_until(listens, 10, "smtp-sink")
        with Relay(smtp_connection_cache_time_limit="5s") as relay:
            for _ in range(20):
                for _ in range(25):
                    relay.deliver(port, ["r@dst.test"], CONTENT + b"x" * 70 + b"\r\n")
                for _ in range(25):
                    assert statuses(relay.result()) == [SENT]
    finally:
        process.terminate()
        process.wait()


def test_ipv6_target():
    with Script(plain(), host="127.0.0.1") as server, Relay() as relay:
        relay.deliver([dict(host="six", address=b"\0" * 15 + b"\1", port=free_port()),
                       dict(host="four", address=LOOPBACK, port=server.port)], ["r@dst.test"])
        result = relay.result()
        assert statuses(result) == [SENT] and result.host == b"four"


def test_limits_rcptdomainmax():
    with Script(plain("PIPELINING", "LIMITS RCPTDOMAINMAX=1")) as server, Relay() as relay:
        relay.deliver(server, ["a@one.test", "b@two.test", "c@ONE.test", "d@two.test"])
        assert statuses(relay.result()) == [SENT] * 4
        commands = server.connections[0].commands
        rcpts = [c[9:-1] for c in commands if c.startswith("RCPT")]
        assert rcpts == ["a@one.test", "c@ONE.test", "b@two.test", "d@two.test"]
        assert sum(c.startswith("MAIL") for c in commands) == 2


def test_recipients_of_a_transaction_are_bounded():
    """recipients_per_message of providers.conf: the rest goes in further transactions."""
    with Script(plain("PIPELINING")) as server, Relay() as relay:
        relay.deliver(server, [f"r{n}@dst.test" for n in range(5)], recipients_max=2)
        assert statuses(relay.result()) == [SENT] * 5
        commands = [c.split()[0].upper() for c in server.connections[0].commands]
        assert len(server.connections) == 1 and commands.count("MAIL") == 3
        assert max(len(part.split("RCPT")) - 1 for part in " ".join(commands).split("MAIL")) == 2


def test_a_connection_is_kept_unused_no_longer_than_said():
    """idle_time of providers.conf goes before smtp_connection_cache_time_limit."""
    with Script(plain()) as server, Relay(smtp_connection_cache_time_limit="300s") as relay:
        relay.deliver(server, ["r@dst.test"], idle_seconds=1)
        assert statuses(relay.result()) == [SENT]
        wait_until(lambda: "QUIT" in server.connections[0].commands, 20, "QUIT")
