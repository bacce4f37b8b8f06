"""Logins and mail of accounts through a whole relay, with TLS and quota."""
import base64
import hashlib
import hmac
import os
import shutil
import smtplib
import socket
import subprocess

import pytest
from postern import ROOT, Postern, wait_until
from shop import MESSAGE, Shop, plain, shop_relay, shop_sink  # noqa: F401
from tls_rig import context


def scram(c, user, password, header=b"n,,"):
    """AUTH SCRAM-SHA-256 (RFC 5802) as a client; the last reply's code."""
    def b64(text):
        return base64.b64encode(text).decode()
    bare = f"n={user},r=fyko+d2lbbFgONRv9qkxdawL".encode()
    code, text = c.docmd("AUTH", "SCRAM-SHA-256 " + b64(header + bare))
    if code != 334:
        return code
    first = base64.b64decode(text)
    parts = dict(p.split(b"=", 1) for p in first.split(b","))
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(parts[b"s"]),
                                 int(parts[b"i"]))
    key = hmac.new(salted, b"Client Key", "sha256").digest()
    without = b"c=" + b64(header).encode() + b",r=" + parts[b"r"]
    message = b",".join((bare, first, without))
    signature = hmac.new(hashlib.sha256(key).digest(), message, "sha256").digest()
    proof = bytes(a ^ b for a, b in zip(key, signature))
    code, text = c.docmd(b64(without + b",p=" + b64(proof).encode()))
    if code != 334:
        return code
    server = hmac.new(salted, b"Server Key", "sha256").digest()
    assert base64.b64decode(text) == b"v=" + b64(hmac.new(server, message, "sha256").digest()).encode()
    return c.docmd("")[0]


def test_acting_as_another_user_is_refused(shop):
    """The same user in other letters is no other one; another is no wrong password."""
    def plain_as(name, password="secret"):
        with shop.connect() as c:
            return c.docmd("AUTH", "PLAIN " + base64.b64encode(
                f"{name}\0web@acme.test\0{password}".encode()).decode())
    for name in ("", "web@acme.test", "WEB@Acme.Test", "\uff37eb@acme.test"):
        assert plain_as(name)[0] == 235, name
    code, text = plain_as("other@acme.test")
    assert code == 535 and b"acting as another user is refused" in text
    shop.wait_log("SASL PLAIN authentication failed: acting as another user is refused, "
                  "sasl_username=web@acme.test")
    for header, code in ((b"n,a=WEB@Acme.Test,", 235), (b"n,a=other@acme.test,", 535)):
        with shop.connect() as c:
            assert scram(c, "web@acme.test", "secret", header) == code


def fail2ban_directory():
    """Its configuration: Debian's place, or beside the programs that t/peers unpacked."""
    beside = os.path.join(os.path.dirname(shutil.which("fail2ban-regex")),
                          "../fail2ban/etc/fail2ban")
    return beside if os.path.isdir(beside) else "/etc/fail2ban"


def scram_plus(c, binding, data, mechanism="SCRAM-SHA-256-PLUS", password="secret"):
    """The same with channel binding: GS2 header `binding`, and what the connection is
    known by. The reply to the first message, or to the last one."""
    def b64(text):
        return base64.b64encode(text).decode()
    header = f"{binding},,".encode()
    bare = b"n=web@acme.test,r=fyko+d2lbbFgONRv9qkxdawL"
    code, text = c.docmd("AUTH", f"{mechanism} " + b64(header + bare))
    if code != 334:
        return code
    first = base64.b64decode(text)
    parts = dict(p.split(b"=", 1) for p in first.split(b","))
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(parts[b"s"]),
                                 int(parts[b"i"]))
    key = hmac.new(salted, b"Client Key", "sha256").digest()
    without = b"c=" + b64(header + data).encode() + b",r=" + parts[b"r"]
    message = b",".join((bare, first, without))
    signature = hmac.new(hashlib.sha256(key).digest(), message, "sha256").digest()
    proof = bytes(a ^ b for a, b in zip(key, signature))
    code, text = c.docmd(b64(without + b",p=" + b64(proof).encode()))
    return c.docmd("")[0] if code == 334 else code


# ---- every port and mechanism ----------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"])
@pytest.mark.parametrize("port", ["port", "submission", "submissions", "alternate"])
def test_every_port_and_mechanism(shop, sink, port, mechanism):
    recipient = f"{port}-{mechanism}@dst.test".lower()
    with shop.connect(getattr(shop, port)) as c:
        assert c.esmtp_features["auth"].split() == ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN",
                                                    "LOGIN"]
        c.user, c.password = "web@acme.test", "secret"
        if mechanism == "SCRAM-SHA-256":
            assert scram(c, c.user, c.password) == 235
        elif mechanism == "SCRAM-SHA-256-PLUS":
            assert scram_plus(c, "p=tls-server-end-point",
                              hashlib.sha256(c.sock.getpeercert(True)).digest()) == 235
        else:
            method = c.auth_plain if mechanism == "PLAIN" else c.auth_login
            assert c.auth(mechanism, method, initial_response_ok=port != "alternate")[0] == 235
        c.sendmail("web@acme.test", [recipient], MESSAGE)
    got = wait_until(lambda: [m for m in sink.messages if m.recipients == [recipient]])
    assert b"with ESMTPSA id" in got[0].content
    shop.wait_log(rf"client=unknown\[127.0.0.1\], sasl_method={mechanism}, "
                  r"sasl_username=web@acme.test$")


def test_channel_binding(shop):
    """SCRAM-SHA-256-PLUS, by the digest of the server's certificate (RFC 5929 section 4)."""
    def attempt(binding, data=None, **how):
        with shop.connect(shop.submissions) as c:
            end_point = hashlib.sha256(c.sock.getpeercert(True)).digest()
            return scram_plus(c, binding, end_point if data is None else data, **how)
    assert attempt("p=tls-server-end-point") == 235
    # somebody between, who has the password's proof but another certificate
    assert attempt("p=tls-server-end-point", bytes(32)) == 535
    shop.wait_log("SASL SCRAM-SHA-256-PLUS authentication failed: the channel binding is that of "
                  "another connection")
    assert attempt("p=tls-server-end-point", password="wrong") == 535
    assert attempt("p=tls-unique") == 535
    # a client that can bind, and to which somebody has said that we cannot
    assert attempt("y", b"", mechanism="SCRAM-SHA-256") == 535
    shop.wait_log("the client did not see that channel binding is offered")
    assert attempt("n", b"", mechanism="SCRAM-SHA-256") == 235
    assert attempt("n", b"") == 535


@pytest.mark.parametrize("port", ["port", "submission", "alternate"])
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN"])
def test_gnu_sasl_logs_in(shop, port, mechanism):
    """Another implementation, whose channel binding is tls-exporter (RFC 9266)."""
    def attempt(password):
        done = subprocess.run(
            ["gsasl", "--smtp", "--starttls", "--x509-ca-file=",  # whoever has signed it
             "--connect", f"127.0.0.1:{getattr(shop, port)}", "--mechanism", mechanism,
             "--authentication-id=web@acme.test", f"--password={password}", "--no-client-first",
             *(["--no-cb"] if mechanism == "SCRAM-SHA-256" else [])],
            input="", capture_output=True, text=True, timeout=60, check=False)
        return done.stdout + done.stderr
    said = attempt("secret")
    assert "235 2.7.0" in said, said
    if port == "submission":  # all of them count together
        said = attempt("wrong")
        assert "235 2.7.0" not in said and "535" in said, said


def test_channel_binding_can_be_turned_off(tmp_path, sink):
    with Shop(tmp_path / "shop", sink, smtpd_sasl_channel_binding="no") as p:
        with p.connect() as c:
            assert c.esmtp_features["auth"].split() == ["SCRAM-SHA-256", "PLAIN", "LOGIN"]
            assert scram_plus(c, "y", b"", mechanism="SCRAM-SHA-256") == 235


def test_wrong_passwords_on_every_mechanism(shop):
    for mechanism in ("PLAIN", "LOGIN", "SCRAM-SHA-256"):
        with shop.connect() as c:
            c.user, c.password = "web@acme.test", "Secret"
            if mechanism == "SCRAM-SHA-256":
                assert scram(c, c.user, c.password) == 535
            else:
                with pytest.raises(smtplib.SMTPAuthenticationError) as e:
                    c.auth(mechanism, c.auth_plain if mechanism == "PLAIN" else c.auth_login)
                assert e.value.smtp_code == 535
            assert c.mail("web@acme.test")[0] == 250
            assert c.rcpt("b@dst.test")[0] == 554
        shop.wait_log(rf"warning: unknown\[127.0.0.1\]: SASL {mechanism} authentication failed: "
                      "wrong password, sasl_username=web@acme.test")


def test_fail2ban_finds_every_mechanism(tmp_path, sink):
    """With the filter that comes with Postern, under its own program names."""
    filters = os.path.join(fail2ban_directory(), "filter.d")
    shutil.copytree(filters, tmp_path / "filter.d")
    shutil.copy(os.path.join(ROOT, "etc/fail2ban/postern.conf"), tmp_path / "filter.d")
    clients = {"127.0.0.2": "PLAIN", "127.0.0.3": "LOGIN", "127.0.0.4": "SCRAM-SHA-256"}
    with Shop(tmp_path / "shop", sink) as p:
        for address, mechanism in clients.items():
            with p.connect(source=address) as c:
                c.user, c.password = "web@acme.test", "Secret"
                if mechanism == "SCRAM-SHA-256":
                    assert scram(c, c.user, c.password) == 535
                else:
                    with pytest.raises(smtplib.SMTPAuthenticationError):
                        c.auth(mechanism, c.auth_plain if mechanism == "PLAIN" else c.auth_login)
        with p.connect(source="127.0.0.5") as c:
            c.login("web@acme.test", "secret")
        p.wait_log(r"disconnect from unknown\[127.0.0.5\]")
        for mode in ("auth", "extra", "aggressive"):
            done = subprocess.run(
                ["fail2ban-regex", "-r", "-o", "ip", p.path("log"),
                 f"{tmp_path}/filter.d/postern.conf[mode={mode}]"],
                capture_output=True, text=True, timeout=60, check=True)
            # 127.0.0.1 hung up without a word when the relay was started
            assert set(done.stdout.split()) - {"127.0.0.1"} == set(clients), (mode, done.stdout)


def test_B11_a_login_is_forgotten_at_starttls(tmp_path, sink):
    with Shop(tmp_path / "shop", sink, smtpd_tls_auth_only="no") as p:
        with p.connect(p.port, tls=False) as c:
            c.login("web@acme.test", "secret")
            assert c.mail("web@acme.test")[0] == 250 and c.rcpt("b@dst.test")[0] == 250
            c.rset()
            c.starttls(context=context())
            c.ehlo()
            assert c.mail("web@acme.test")[0] == 250
            assert c.rcpt("b@dst.test")[0] == 554
            c.rset()
            c.login("web@acme.test", "secret")
            assert c.mail("web@acme.test")[0] == 250 and c.rcpt("b@dst.test")[0] == 250


def test_B13_no_auth_without_tls(shop):
    for port in (shop.port, shop.submission, shop.alternate):
        with shop.connect(port, tls=False) as c:
            assert "auth" not in c.esmtp_features
            assert c.docmd("AUTH", "PLAIN " + plain("web@acme.test", "secret"))[0] == 538
            assert c.docmd("AUTH", "LOGIN")[0] == 538


# ---- what the plan says ------------------------------------------------------------------------


def test_plan_is_announced_and_enforced(shop, sink):
    shop.ctl("account", "add", "tiny", "--plan", "small")
    shop.user("tiny", "secret", "tiny")
    shop.ctl("domain", "add", "tiny", "tiny.test")
    with shop.login("tiny") as c:
        c.ehlo()
        assert c.esmtp_features["size"] == "20000"
        assert c.esmtp_features["limits"] == "RCPTMAX=3"
        assert c.docmd("MAIL FROM:<a@tiny.test> SIZE=20001")[0] == 552
        code, text = c.mail("a@acme.test")
        assert code == 553 and b"not owned by account tiny" in text
        assert c.mail("a@tiny.test")[0] == 250
        assert [c.rcpt(f"{n}@dst.test")[0] for n in range(4)] == [250, 250, 250, 452]
        assert c.data(b"From: a@tiny.test\r\n\r\nx\r\n")[0] == 250
        c.mail("a@tiny.test")
        c.rcpt("b@dst.test")
        code, text = c.data(b"From: a@tiny.test\r\n\r\n" + b"x" * 78 + b"\r\n" * 10000)
        assert code == 552 and b"20000 bytes" in text
        c.mail("a@tiny.test")
        c.rcpt("b@dst.test")
        code, text = c.data(b"From: ceo@bank.test\r\n\r\nx\r\n")
        assert code == 550 and b"ceo@bank.test" in text
        sent = 3
        while sent < 20:
            c.sendmail("a@tiny.test", ["b@dst.test"], b"From: a@tiny.test\r\n\r\nx\r\n")
            sent += 1
        code, text = c.mail("a@tiny.test")
        assert code == 550 and b"used up" in text
    wait_until(lambda: shop.usage("tiny")["delivered"] == 20, 20, "the charges")
    assert shop.usage("tiny")["messages"] == 20


def test_one_login_from_many_sessions_is_counted_together(shop, sink):
    before = shop.usage()["delivered"]
    ports = [shop.port, shop.submission, shop.submissions, shop.alternate] * 3
    sessions = [shop.login(port=p) for p in ports]
    for n, c in enumerate(sessions):
        c.sendmail("web@acme.test", [f"many{n}@dst.test", f"more{n}@dst.test"], MESSAGE)
    for c in sessions:
        c.quit()
    wait_until(lambda: shop.usage()["delivered"] == before + 24, 20, "the charges")


def test_suspended_user_and_account(shop):
    shop.user("gone", "secret")
    with shop.login("gone") as c:
        shop.ctl("user", "suspend", "gone")
        code, text = c.mail("web@acme.test")
        assert code == 550 and b"the user is suspended" in text
    with shop.connect() as c, pytest.raises(smtplib.SMTPAuthenticationError) as e:
        c.login("gone", "secret")
    assert e.value.smtp_code == 535 and b"the user is suspended" in e.value.smtp_error


# ---- faults --------------------------------------------------------------------------------------


def test_F16_sessions_survive_quota(tmp_path, sink):
    with Shop(tmp_path / "shop", sink) as p:
        c = p.login()
        for pid in p.pids("quota"):
            os.kill(pid, 9)
        codes = set()

        def taken():
            code = c.mail("web@acme.test")[0]
            codes.add(code)
            return code == 250 and c.rcpt("b@dst.test")[0] == 250
        wait_until(taken, 20, "MAIL after quota's restart")
        assert codes <= {250, 451}
        assert c.data(MESSAGE)[0] == 250
        c.quit()
        with p.login() as again:
            again.sendmail("web@acme.test", ["b@dst.test"], MESSAGE)
        wait_until(lambda: p.usage()["delivered"] == 2, 20, "the charges")


# ---- what programs do ------------------------------------------------------------------------------


class Thunderbird:
    """What Thunderbird 115 sends, byte by byte."""

    def __init__(self, shop, immediate):
        port = shop.submissions if immediate else shop.submission
        self.sock = socket.create_connection(("127.0.0.1", port), 20)
        if immediate:
            self.secure()
        assert self.read().startswith("220")
        features = self.say("EHLO [127.0.0.1]")
        if not immediate:
            assert "250-STARTTLS" in features and "AUTH" not in features
            assert self.say("STARTTLS").startswith("220")
            self.secure()
            features = self.say("EHLO [127.0.0.1]")
        assert "STARTTLS" not in features
        assert "250-AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN" in features

    def secure(self):
        self.sock = context().wrap_socket(self.sock, server_hostname="relay.test")

    def read(self):
        got = b""
        while not got.endswith(b"\r\n") or got.splitlines()[-1][3:4] != b" ":
            part = self.sock.recv(4096)
            assert part, got
            got += part
        return got.decode()

    def say(self, line):
        self.sock.sendall(line.encode() + b"\r\n")
        return self.read()

    def plain(self, password):
        return self.say("AUTH PLAIN " + plain("web@acme.test", password))[:3]

    def login(self, password):
        assert self.say("AUTH LOGIN") == "334 VXNlcm5hbWU6\r\n"
        assert self.say(base64.b64encode(b"web@acme.test").decode()) == "334 UGFzc3dvcmQ6\r\n"
        return self.say(base64.b64encode(password.encode()).decode())[:3]

    def send(self, recipient):
        size = len(MESSAGE)
        assert self.say(f"MAIL FROM:<web@acme.test> BODY=8BITMIME SIZE={size}").startswith("250")
        assert self.say(f"RCPT TO:<{recipient}>").startswith("250")
        assert self.say("DATA").startswith("354")
        self.sock.sendall(MESSAGE)
        assert self.say(".").startswith("250")
        assert self.say("QUIT").startswith("221")
        self.sock.close()


@pytest.mark.parametrize("immediate", [False, True], ids=["starttls", "tls"])
def test_thunderbird_s_sequence(shop, sink, immediate):
    recipient = f"bird-{immediate}@dst.test".lower()
    bird = Thunderbird(shop, immediate)
    assert bird.plain("secret") == "235"
    bird.send(recipient)
    got = wait_until(lambda: [m for m in sink.messages if m.recipients == [recipient]])
    assert b"with ESMTPSA id" in got[0].content


def test_thunderbird_tries_another_mechanism(tmp_path, sink):
    """With an old password in its store: PLAIN fails, LOGIN as well, in the same connection;
    then it has asked for the new one, and begins again with PLAIN."""
    with Shop(tmp_path / "shop", sink) as p:
        for immediate in (False, True):
            recipient = f"bird-again-{immediate}@dst.test".lower()
            bird = Thunderbird(p, immediate)
            assert [bird.plain("old"), bird.login("old")] == ["535", "535"]
            assert bird.plain("secret") == "235"
            bird.send(recipient)
            bird = Thunderbird(p, immediate)  # its settings may name LOGIN alone
            assert bird.login("secret") == "235"
            bird.send(recipient)
            wait_until(lambda r=recipient: 2 == len([m for m in sink.messages if m.recipients == [r]]))
        p.wait_log("SASL LOGIN authentication failed: wrong password, sasl_username=web@acme.test")
