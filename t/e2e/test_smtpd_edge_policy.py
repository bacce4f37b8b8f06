"""check_policy_service: requests, actions, and servers that misbehave. A whole
Postern runs, as master makes the connections."""
import os
import re
import socket
import threading

import pytest

from postern import Postern, free_port, wait_until
from smtpd_rig import MESSAGE, Client

ATTRIBUTES = """request protocol_state protocol_name client_address client_name client_port
reverse_client_name server_address server_port helo_name sender recipient recipient_count queue_id
instance size etrn_domain stress sasl_method sasl_username sasl_sender ccert_subject ccert_issuer
ccert_fingerprint ccert_pubkey_fingerprint encryption_protocol encryption_cipher encryption_keysize
policy_context compatibility_level mail_version""".split()


class PolicyServer:
    """Answers each request with what `answer(request)` returns: an action, bytes
    that go out as they are, or None to close the connection."""

    def __init__(self, address=("127.0.0.1", 0)):
        self.socket = socket.socket(socket.AF_UNIX if isinstance(address, str)
                                    else socket.AF_INET)
        self.socket.bind(address)
        if isinstance(address, str):
            os.chmod(address, 0o666)
        self.socket.listen(64)
        self.name = address if isinstance(address, str) else \
            f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.answer = lambda request: "DUNNO"
        self.requests, self.connections, self.open = [], 0, []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.connections += 1
            self.open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            self._answer_all(connection)
        except OSError:
            pass  # it has hung up

    def _answer_all(self, connection):
        with connection, connection.makefile("rb") as lines:
            request = {}
            for line in lines:
                if line != b"\n":
                    name, value = line.decode().rstrip("\n").split("=", 1)
                    request[name] = value
                    continue
                self.requests.append(request)
                out = self.answer(request)
                request = {}
                if out is None:
                    return
                if isinstance(out, str):
                    out = f"action={out}\n\n".encode()
                connection.sendall(out)

    def set(self, answer):
        """From here on: an action, bytes, None, or a function of the request."""
        self.answer = answer if callable(answer) else lambda request: answer
        self.requests.clear()

    def hang_up(self):
        """Closes all connections from this side."""
        for connection in self.open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.open.clear()

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    names = ("client", "helo", "sender", "recipient", "data", "end_of_data")
    out = {name: PolicyServer() for name in names[:-1]}
    folder = tmp_path_factory.mktemp("policy")
    folder.chmod(0o711)  # master goes there with the rights of smtpd's user
    out["end_of_data"] = PolicyServer(str(folder / "socket"))
    yield out
    for server in out.values():
        server.close()


@pytest.fixture(scope="module")
def relay(tmp_path_factory, servers):
    rules = {f"smtpd_{name}_restrictions": f"check_policy_service inet:{s.name}"
             for name, s in servers.items()}
    rules["smtpd_end_of_data_restrictions"] = \
        f"check_policy_service {{ unix:{servers['end_of_data'].name}, policy_context=end, " \
        "timeout=5s }"
    rules["smtpd_recipient_restrictions"] = \
        f"check_policy_service {{ inet:{servers['recipient'].name}, timeout=1s, " \
        "{ default_action = 450 4.3.9 no policy } }, permit_mynetworks, reject"
    with Postern(tmp_path_factory.mktemp("relay"), relayhost=f"[127.0.0.1]:{free_port()}",
                 smtpd_hard_error_limit="1000", smtpd_soft_error_limit="1000",
                 smtpd_authorized_xclient_hosts="127.0.0.1", **rules) as p:
        wait_until(lambda: takes_mail(p), 20, "a relay that takes mail")
        yield p


def takes_mail(relay):
    with Client(relay.port) as c:
        c.command("EHLO client.test")
        return c.command("MAIL FROM:<>")[0] == 250


@pytest.fixture(autouse=True)
def all_pass(servers):
    for server in servers.values():
        server.set("DUNNO")


def client(relay):
    c = Client(relay.port)
    c.expect("EHLO client.test", "250")
    c.expect("MAIL FROM:<a@src.test> SIZE=100", "250")
    return c


def rcpt(relay, servers, name, answer):
    """The reply to RCPT when one of the servers answers this."""
    servers[name].set(answer)
    with client(relay) as c:
        code, text = c.command("RCPT TO:<b@dst.test>")
        return f"{code} {text}"


def queued(relay, c, content=MESSAGE):
    c.data(content + b".\r\n")
    code, text = c.reply()
    assert code == 250, (code, text)
    queue_id = text.rsplit(" ", 1)[-1]
    return queue_id, relay.ctl("message", "show", queue_id)


def test_every_stage_is_asked_with_all_attributes(relay, servers):
    with client(relay) as c:
        c.expect("RCPT TO:<b@dst.test>", "250")
        c.expect("RCPT TO:<c@dst.test>", "250")
        port = c.sock.getsockname()[1]
        queue_id, _ = queued(relay, c)
    for name, server in servers.items():
        at_rcpt = name not in ("data", "end_of_data")
        assert len(server.requests) == (2 if at_rcpt else 1), name
        r = server.requests[-1]
        assert sorted(r) == sorted(ATTRIBUTES)
        want = {"request": "smtpd_access_policy", "protocol_name": "ESMTP",
                "client_address": "127.0.0.1", "client_name": "unknown",
                "client_port": str(port), "server_address": "127.0.0.1",
                "server_port": str(relay.port), "helo_name": "client.test",
                "sender": "a@src.test", "instance": queue_id, "queue_id": queue_id,
                "protocol_state": {"data": "DATA", "end_of_data": "END-OF-MESSAGE"}.get(
                    name, "RCPT"),
                "recipient": "c@dst.test" if at_rcpt else "",
                "recipient_count": "0" if at_rcpt else "2",
                "size": str(len(MESSAGE)) if name == "end_of_data" else "100",
                "policy_context": "end" if name == "end_of_data" else ""}
        assert {k: r[k] for k in want} == want, name
    assert servers["recipient"].requests[0]["queue_id"] == ""


@pytest.mark.parametrize("name, what", [
    ("client", "<unknown[127.0.0.1]>: Client host"), ("helo", "<client.test>: Helo command"),
    ("sender", "<a@src.test>: Sender address"), ("recipient", "<b@dst.test>: Recipient address")])
def test_refusals_at_rcpt(relay, servers, name, what):
    assert rcpt(relay, servers, name, "REJECT") == f"554 5.7.1 {what} rejected: Access denied"
    relay.wait_log(rf"NOQUEUE: reject: RCPT from unknown\[127\.0\.0\.1\]: 554 5\.7\.1 "
                   rf"{re.escape(what)} rejected: Access denied; from=<a@src\.test> "
                   r"to=<b@dst\.test> proto=ESMTP helo=<client\.test>")


@pytest.mark.parametrize("action, start", [
    ("REJECT not here", "554 5.7.1 <b@dst.test>: Recipient address rejected: not here"),
    ("reject 5.1.1 gone", "554 5.1.1 <b@dst.test>: Recipient address rejected: gone"),
    ("550 5.7.2 no", "550 5.7.2 <b@dst.test>: Recipient address rejected: no"),
    ("DEFER", "450 4.7.1 <b@dst.test>: Recipient address rejected: Try again later"),
    ("451 wait", "451 4.7.1 <b@dst.test>: Recipient address rejected: wait"),
    ("DEFER_IF_PERMIT Greylisted", "450 4.7.1 <b@dst.test>: Recipient address rejected: Grey"),
    ("DEFER_IF_REJECT later", "250"),  # mynetworks permits
    ("DUNNO", "250"), ("OK", "250"), ("permit", "250"), ("INFO noted", "250"),
    ("REDIRECT x@y.test", "451 4.3.5 <b@dst.test>: Recipient address rejected: Server conf"),
    ("", "451 4.3.5"), ("299 what", "451 4.3.5"),
    ("PREPEND no header", "451 4.3.5"),
])
def test_actions(relay, servers, action, start):
    assert rcpt(relay, servers, "recipient", action).startswith(start)


def test_421_ends_the_connection(relay, servers):
    servers["sender"].set("421 4.7.0 go away")
    with client(relay) as c:
        c.expect("RCPT TO:<b@dst.test>", "421 4.7.0")
        assert c.closed()


def test_defer_if_permit_gives_way_to_a_refusal(relay, servers):
    servers["client"].set("DEFER_IF_PERMIT later")
    assert rcpt(relay, servers, "recipient", "REJECT").startswith("554 5.7.1")
    assert rcpt(relay, servers, "recipient", "OK").startswith("450 4.7.1 <unknown[127.0.0.1]>")


def test_defer_if_reject_softens_a_refusal(relay, servers):
    servers["client"].set("DEFER_IF_REJECT later")
    assert rcpt(relay, servers, "recipient", "REJECT").startswith("450 4.7.1 <unknown[127.0.0.1]>")
    assert rcpt(relay, servers, "recipient", "OK").startswith("250")


def test_policy_never_lets_strangers_relay(relay, servers):
    servers["recipient"].set("OK")
    with Client(relay.port) as c:
        c.expect("XCLIENT ADDR=203.0.113.7", "220")
        c.expect("EHLO client.test", "250")
        c.expect("MAIL FROM:<a@src.test>", "250")
        c.expect("RCPT TO:<b@dst.test>", "554 5.7.1")
    assert not servers["recipient"].requests


def test_only_the_refused_recipient_is_lost(relay, servers):
    servers["recipient"].set(
        lambda r: "REJECT" if r["recipient"].startswith("bad") else "DUNNO")
    with client(relay) as c:
        c.send("RCPT TO:<one@dst.test>\r\nRCPT TO:<bad@dst.test>\r\nRCPT TO:<two@dst.test>\r\n")
        assert [c.reply()[0] for _ in range(3)] == [250, 554, 250]
        _, shown = queued(relay, c)
    assert "one@dst.test" in shown and "two@dst.test" in shown and "bad@dst.test" not in shown


def test_hold_and_prepend(relay, servers):
    servers["recipient"].set("PREPEND X-Policy: first")
    servers["data"].set("HOLD suspicious")
    servers["end_of_data"].set("PREPEND X-Policy: second")
    with client(relay) as c:
        c.expect("RCPT TO:<b@dst.test>", "250")
        queue_id, _ = queued(relay, c)
    files = wait_until(
        lambda: [f for f in relay.spool_files() if os.path.basename(f) == queue_id], 10, "its file")
    with open(files[0], "rb") as f:
        assert b"X-Policy: first\r\nX-Policy: second\r\nReceived: from client.test" in f.read()
    held = relay.ctl("queue", "list", "--json")
    assert re.search(rf"{queue_id}", held)
    relay.wait_log(rf"{queue_id}: hold: DATA from unknown\[127\.0\.0\.1\]: suspicious")
    assert re.search(rf"{queue_id}.*hold|hold.*{queue_id}", held.replace("\n", " "))


def test_refused_recipient_leaves_no_header(relay, servers):
    servers["sender"].set("PREPEND X-Policy: secret")
    servers["recipient"].set(
        lambda r: "REJECT" if r["recipient"].startswith("bad") else "DUNNO")
    with client(relay) as c:
        c.expect("RCPT TO:<bad@dst.test>", "554")
        servers["sender"].set("DUNNO")
        c.expect("RCPT TO:<b@dst.test>", "250")
        queue_id, _ = queued(relay, c)
    files = wait_until(
        lambda: [f for f in relay.spool_files() if os.path.basename(f) == queue_id], 10, "its file")
    with open(files[0], "rb") as f:
        assert b"secret" not in f.read()


def test_refusal_at_data(relay, servers):
    servers["data"].set("REJECT")
    with client(relay) as c:
        c.expect("RCPT TO:<b@dst.test>", "250")
        c.expect("DATA", "554 5.7.1 <DATA>: Data command rejected: Access denied")
        servers["data"].set("DUNNO")
        queued(relay, c)


def test_refusal_at_bdat_swallows_the_chunk(relay, servers):
    servers["data"].set("REJECT")
    with client(relay) as c:
        c.expect("RCPT TO:<b@dst.test>", "250")
        c.send(b"BDAT %d LAST\r\n%sNOOP\r\n" % (len(MESSAGE), MESSAGE))
        assert c.reply()[0] == 554
        assert c.reply()[0] == 250
    assert servers["data"].requests[0]["protocol_state"] == "BDAT"


def test_bdat_passes(relay, servers):
    with client(relay) as c:
        c.expect("RCPT TO:<b@dst.test>", "250")
        c.send(b"BDAT 0\r\n")
        assert c.reply()[0] == 250
        c.send(b"BDAT %d\r\n%sBDAT 0 LAST\r\n" % (len(MESSAGE), MESSAGE))
        assert [c.reply()[0] for _ in range(2)] == [250, 250]
    assert len(servers["data"].requests) == 1
    assert servers["end_of_data"].requests[0]["size"] == str(len(MESSAGE))


def test_refusal_at_the_end_of_data(relay, servers):
    servers["end_of_data"].set("550 5.7.1 spam")
    with client(relay) as c:
        c.expect("RCPT TO:<b@dst.test>", "250")
        c.data(MESSAGE + b".\r\n")
        code, text = c.reply()
        assert (code, text) == (550, "5.7.1 <END-OF-MESSAGE>: End-of-data rejected: spam")
        servers["end_of_data"].set("DUNNO")
        c.expect("MAIL FROM:<a@src.test>", "250")
        c.expect("RCPT TO:<b@dst.test>", "250")
        queued(relay, c)


def test_content_sent_while_data_is_decided_ends_the_dialogue(relay, servers):
    """B21: what is sent before 354 is neither a message nor commands."""
    asked, go = threading.Event(), threading.Event()

    def answer(_):
        asked.set()
        go.wait(10)
        return "REJECT"
    servers["data"].set(answer)
    with client(relay) as c:
        c.expect("RCPT TO:<b@dst.test>", "250")
        c.send("DATA\r\n")
        assert asked.wait(10)
        c.send("RSET\r\nMAIL FROM:<smuggled@src.test>\r\n")
        go.set()
        assert c.reply()[0] == 554
        assert c.closed()


def test_a_slow_server_does_not_hold_up_other_sessions(relay, servers):
    asked, go = threading.Event(), threading.Event()

    def answer(request):
        if request["sender"] != "a@src.test":
            return "DUNNO"
        asked.set()
        go.wait(10)
        return "DUNNO"
    servers["client"].set(answer)
    with client(relay) as slow:
        slow.send("RCPT TO:<b@dst.test>\r\n")
        assert asked.wait(10)
        with Client(relay.port) as c:
            c.expect("EHLO other.test", "250")
            c.expect("MAIL FROM:<z@src.test>", "250")
            c.expect("RCPT TO:<b@dst.test>", "250")
            queued(relay, c)
        go.set()
        assert slow.reply()[0] == 250


def test_client_that_leaves_while_its_server_is_asked(relay, servers):
    asked, go = threading.Event(), threading.Event()

    def answer(_):
        asked.set()
        go.wait(10)
        return "DUNNO"
    servers["client"].set(answer)
    c = client(relay)
    c.send("RCPT TO:<b@dst.test>\r\n")
    assert asked.wait(10)
    c.sock.close()
    go.set()
    servers["client"].set("DUNNO")
    assert rcpt(relay, servers, "recipient", "DUNNO").startswith("250")


def test_no_answer_in_time_is_the_default_action(relay, servers):
    go = threading.Event()

    def answer(_):
        go.wait(20)
        return "DUNNO"
    assert rcpt(relay, servers, "recipient", answer) == \
        "450 4.3.9 <b@dst.test>: Recipient address rejected: no policy"
    relay.wait_log(r"warning: policy server inet:\S+: no answer in time; its default action")
    go.set()


@pytest.mark.parametrize("bad", [
    None, b"\n", b"nonsense\n\n", b"action=DUNNO\naction=OK\n\n",
    b"action=DUNNO\r\n\r\n", b"action=a\0b\n\n", b"x" * 10000], ids=lambda b: repr(b)[:20])
def test_bad_answer_is_tried_once_more(relay, servers, bad):
    answers = [bad, "REJECT second"]
    reply = rcpt(relay, servers, "recipient", lambda _: answers.pop(0))
    assert reply.startswith("554 5.7.1"), reply
    assert len(servers["recipient"].requests) == 2


@pytest.mark.parametrize("part", [b"", b"action=DUNNO\n"])
def test_server_that_stops_in_its_answer(relay, servers, part):
    assert rcpt(relay, servers, "recipient", part).startswith("450 4.3.9")
    assert len(servers["recipient"].requests) == 1


@pytest.mark.parametrize("bad", [None, b"nonsense\n\n"])
def test_two_bad_answers_are_the_default_action(relay, servers, bad):
    assert rcpt(relay, servers, "recipient", bad).startswith("450 4.3.9")
    assert len(servers["recipient"].requests) == 2


def test_connections_are_used_again_and_stale_ones_replaced(relay, servers):
    server = servers["sender"]
    assert rcpt(relay, servers, "sender", "DUNNO").startswith("250")
    before = server.connections
    for _ in range(5):
        assert rcpt(relay, servers, "sender", "DUNNO").startswith("250")
    assert server.connections == before
    for _ in range(3):
        server.hang_up()
        assert rcpt(relay, servers, "sender", "DUNNO").startswith("250")


def test_nobody_listens(place):
    port = free_port()
    with Postern(place, relayhost=f"[127.0.0.1]:{free_port()}",
                 smtpd_recipient_restrictions=f"check_policy_service inet:127.0.0.1:{port}") as p:
        wait_until(lambda: takes_mail(p), 20, "a relay that takes mail")
        with client(p) as c:
            c.expect("RCPT TO:<b@dst.test>",
                     "451 4.3.5 <b@dst.test>: Recipient address rejected: Server configuration "
                     "problem")
        p.wait_log(rf"policy server inet:127\.0\.0\.1:{port}: Connection refused; its default")


@pytest.mark.parametrize("value, words", [
    ("reject_unknown_client_hostname", "is not known here"),
    ("check_policy_service", "name a server behind it"),
    ("check_policy_service inet:policy.example:10040", "with a numeric address"),
    ("check_policy_service unix:", "is not a server's address"),
    ("check_policy_service { inet:127.0.0.1:1, max_idle=3 }", "is not known for a policy server"),
    ("check_policy_service { inet:127.0.0.1:1, timeout=0 }", "give seconds"),
    ("check_policy_service { inet:127.0.0.1:1, default_action=FILTER }", "is no action"),
])
def test_bad_restrictions_do_not_start(place, value, words):
    with Postern(place, start=False) as p:
        p.write_config(smtpd_recipient_restrictions=value)
        done = p.ctl("check", check=False)
        assert done.returncode != 0
        text = done.stdout + done.stderr
        assert words in text and re.search(r"main\.cf:\d+: smtpd_recipient_restrictions: ", text)
