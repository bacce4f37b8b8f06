"""Other people's programs hand mail to Postern: what they send arrives as it was.

Clients are smtp-source, swaks, smtplib, nodemailer, curl and msmtp, and the mail
servers Postfix, Exim and OpenSMTPD with Postern as their smarthost. What none of
them would send correctly (bare CR and LF, NUL) is sent by curl, which passes on
the bytes of its file."""
import os
import re
import smtplib
import ssl
import subprocess

import pytest

from peers import Exim, Opensmtpd, Postfix, assert_same, folder, needs_root, without_trace
from postern import Postern
from sink import Sink
from test_peers_deliver import ARRIVES, BODIES, HEADER

CLIENTS_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "clients")
SENDER = "a@src.test"


def with_lf(content):
    return content.replace(b"\r\n", b"\n")


def arrives(name):
    return ARRIVES.get(name, BODIES[name])


class Tls:
    """How a client shall use TLS: by STARTTLS or from the first byte; whom it trusts."""

    def __init__(self, mode, ca):
        assert mode in ("starttls", "tls")
        self.mode, self.ca = mode, ca


class Client:
    """One program that sends the message in a file."""
    speaks_tls = True
    cannot = ()     # bodies that it does not send as they are
    adds = b""      # what it sends behind each
    file_form = staticmethod(lambda content: content)   # what the program wants in its file

    def run(self, argv, **options):
        return subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=120,
                              check=False, **options)


class SmtpSource(Client):
    speaks_tls = False
    cannot = ("empty",)
    adds = b"\r\n"  # an empty line, always
    file_form = staticmethod(with_lf)

    def send(self, port, recipient, path, tls=None):
        assert not tls
        return self.run(["smtp-source", "-F", path, "-f", SENDER, "-t", recipient, "-M",
                         "client.test", f"127.0.0.1:{port}"])


class Swaks(Client):
    """With a text that is on the wire as it is in the file."""

    @staticmethod
    def file_form(content):
        return re.sub(rb"(?m)^\.", b"..", content) + b".\r\n"

    def send(self, port, recipient, path, tls=None):
        options = ["--tls" if tls.mode == "starttls" else "--tls-on-connect", "--tls-verify",
                   "--tls-ca-path", tls.ca] if tls else []
        return self.run(["swaks", "--server", f"127.0.0.1:{port}", "--from", SENDER, "--to",
                         recipient, "--helo", "client.test", "--no-data-fixup", "--hide-all",
                         "--data", f"@{path}", *options])


class Smtplib(Client):
    cannot = ("empty",)

    @staticmethod
    def connect(port, tls):
        if not tls:
            return smtplib.SMTP("127.0.0.1", port, "client.test", 120)
        context = ssl.create_default_context(cafile=tls.ca)
        if tls.mode == "tls":
            return smtplib.SMTP_SSL("127.0.0.1", port, "client.test", timeout=120,
                                    context=context)
        c = smtplib.SMTP("127.0.0.1", port, "client.test", 120)
        c.starttls(context=context)
        return c

    def send(self, port, recipient, path, tls=None):
        with open(path, "rb") as f, self.connect(port, tls) as c:
            try:
                c.sendmail(SENDER, [recipient], f.read())
            except smtplib.SMTPException as e:
                return subprocess.CompletedProcess(["smtplib"], 1, "", str(e))
        return subprocess.CompletedProcess(["smtplib"], 0, "", "")


class Nodemailer(Client):
    cannot = ("empty",)

    def send(self, port, recipient, path, tls=None):
        options = [tls.mode, tls.ca] if tls else []
        return self.run(
            ["node", os.path.join(CLIENTS_FOLDER, "nodemailer.js"), str(port), SENDER, recipient,
             path, *options],
            env={**os.environ,
                 "NODE_PATH": os.path.join(folder(), "nodemailer/usr/share/nodejs")})


class Curl(Client):
    def send(self, port, recipient, path, tls=None):
        scheme = "smtps" if tls and tls.mode == "tls" else "smtp"
        options = ["--ssl-reqd", "--cacert", tls.ca] if tls else []
        return self.run(["curl", "-sS", "--url", f"{scheme}://127.0.0.1:{port}/client.test",
                         "--mail-from", SENDER, "--mail-rcpt", recipient, "--upload-file", path,
                         *options])


class Msmtp(Client):
    file_form = staticmethod(with_lf)

    def send(self, port, recipient, path, tls=None):
        options = ["--tls=on", f"--tls-trust-file={tls.ca}",
                   f"--tls-starttls={'on' if tls.mode == 'starttls' else 'off'}"] if tls else []
        with open(path, "rb") as f:
            return self.run(["msmtp", "--file=/dev/null", "--host=127.0.0.1", f"--port={port}",
                             "--domain=client.test", f"--from={SENDER}", "--set-from-header=off",
                             "--set-date-header=off", "--set-msgid-header=off", *options, "--",
                             recipient],
                            stdin=f)


CLIENTS = {c.__name__.lower(): c() for c in (SmtpSource, Swaks, Smtplib, Nodemailer, Curl, Msmtp)}


def send(client, p, place, recipient, content, tls=None, port=None):
    path = os.path.join(place, "message")
    with open(path, "wb") as f:
        f.write(client.file_form(content))
    return client.send(port or p.port, recipient, path, tls)


def relay(place, sink, **config):
    return Postern(os.path.join(place, "relay"), relayhost=f"[127.0.0.1]:{sink.port}",
                   message_size_limit="60m", **config)


def check(sink, names, adds=b""):
    """Body number i has come to ri@dst.test, and nothing else has come."""
    got = {m.recipients[0]: m for m in sink.messages}
    assert len(sink.messages) == len(got) == len(names)
    for i, name in enumerate(names):
        m = got[f"r{i}@dst.test"]
        assert m.sender == SENDER
        assert_same(name, without_trace(m.content), arrives(name) + adds)


@pytest.mark.parametrize("name", CLIENTS)
def test_bodies_from(place, name):
    client = CLIENTS[name]
    names = [n for n in BODIES if n not in client.cannot]
    with Sink() as sink, relay(place, sink) as p:
        for i, body in enumerate(names):
            done = send(client, p, place, f"r{i}@dst.test", BODIES[body])
            assert done.returncode == 0, (body, done.stdout, done.stderr)
        sink.wait(len(names), 60)
        check(sink, names, client.adds)


@needs_root
@pytest.mark.parametrize("kind", (Postfix, Exim, Opensmtpd))
def test_bodies_from_a_server_with_postern_as_smarthost(place, kind):
    # what others make of a message without a header is not Postern's matter
    names = [n for n in BODIES if BODIES[n].startswith(b"From:") and n != "no separator"]
    with Sink() as sink, relay(place, sink) as p:
        with kind(place, relayhost=p.port) as server:
            for i, name in enumerate(names):
                server.submit(SENDER, f"r{i}@dst.test", BODIES[name], ["BODY=8BITMIME"])
            sink.wait(len(names), 120)
            check(sink, names)
        # the verb that each uses with a server that offers CHUNKING
        p.wait_log(r" bdat=\d" if kind is Exim else r" data=\d")


BAD_ENDS = {"LF": b"one\ntwo\r\n", "CR": b"one\rtwo\r\n", "LF.LF": b"one\r\ntwo\n.\nthree\r\n",
            "LF.CRLF": b"one\r\ntwo\n.\r\nthree\r\n", "CR.CR": b"one\rtwo\r.\rthree\r\n",
            "CRLF.LF": b"one\r\n.\ntwo\r\n"}


@pytest.mark.parametrize("name", BAD_ENDS)
def test_B01_B02_bare_line_ends_from_curl_are_refused(place, name):
    with Sink() as sink, relay(place, sink) as p:
        done = send(CLIENTS["curl"], p, place, "r@dst.test", HEADER + b"\r\n" + BAD_ENDS[name])
        assert done.returncode != 0, "curl has seen the refusal"
        p.wait_log(r": reject: END-OF-MESSAGE from .*: 550 5\.5\.2 |reject: .*550 5\.5\.2 ")
        assert p.log().count("queue active") == 0 and sink.messages == []


def normalized(content):
    """Each line ends with CRLF. A dot that begins a line is dot-stuffing: curl adds
    none behind a bare line end, so there its own dot is taken for it."""
    return re.sub(rb"(?<=[^\r]\n)\.|(?<=\r)\.", b"", content).replace(
        b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


@pytest.mark.parametrize("name", BAD_ENDS)
def test_B01_B02_bare_line_ends_from_curl_become_line_ends(place, name):
    with Sink() as sink, relay(place, sink, smtpd_forbid_bare_newline="normalize") as p:
        done = send(CLIENTS["curl"], p, place, "r@dst.test", HEADER + b"\r\n" + BAD_ENDS[name])
        assert done.returncode == 0, done.stderr
        have = without_trace(sink.wait(1)[0].content)
        assert have == HEADER + b"\r\n" + normalized(BAD_ENDS[name])
        assert len(sink.messages) == 1


@pytest.mark.parametrize("setting", ("reject", "normalize"))
def test_B05_NUL_from_curl_is_refused(place, setting):
    with Sink() as sink, relay(place, sink, smtpd_forbid_bare_newline=setting) as p:
        done = send(CLIENTS["curl"], p, place, "r@dst.test", HEADER + b"\r\none\0two\r\n")
        assert done.returncode != 0, "curl has seen the refusal"
        p.wait_log(r"reject: .*550 ")
        assert sink.messages == []
