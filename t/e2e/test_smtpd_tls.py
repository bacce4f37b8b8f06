"""TLS with clients: STARTTLS, TLS from the first byte, certificates, keyd."""
import os
import re
import select
import signal
import smtplib
import socket
import ssl
import subprocess

import pytest

from certs import Authority
from postern import Postern, free_port, wait_until
from sink import Sink
from tls_rig import (client_hello, common_name, context, make, starttls, wrapped, write_secret)

MESSAGE = b"Subject: x\r\nMessage-ID: <1@src.test>\r\n\r\nbody\r\n"
TLS12 = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2)


@pytest.fixture(name="made", scope="module")
def _made(tmp_path_factory):
    directory = tmp_path_factory.mktemp("certificates")
    authority = make(directory, "authority.test")

    class All:
        path = directory
        relay = make(directory, "relay.test")
        rsa = make(directory, "relay.test", "rsa:2048")
        other = make(directory, "other.test")
        ca = authority
        friend = make(directory, "friend.test", by=authority)
        stranger = make(directory, "stranger.test")
    return All


def services(port, *more):
    """Lines of master.cf: STARTTLS on `port`, and others as (port, options)."""
    lines = [f"127.0.0.1:{port} inet n - y - 1 smtpd\n"]
    lines += [f"127.0.0.1:{p} inet n - y - {count} smtpd {options}\n" for p, count, options in more]
    return "".join(lines)


class Relay(Postern):
    """With STARTTLS at `port` and TLS from the first byte at `tls_port`."""

    def __init__(self, directory, made, count=1, start=True, options="", **config):
        self.tls_port, self.second_port = free_port(), free_port()
        super().__init__(directory, start=False, **{**made.relay.config, **config})
        immediate = f"-o smtpd_tls_wrappermode=yes {options}"
        self.master_cf = services(self.port, (self.tls_port, count, immediate),
                                  (self.second_port, 1, immediate))
        self.write_config()
        if start:
            self.start()


@pytest.fixture(name="relay")
def _relay(tmp_path, made):
    with Relay(tmp_path / "relay", made) as p:
        yield p


def raw(port):
    s = socket.create_connection(("127.0.0.1", port), 20)
    assert s.recv(500).startswith(b"220")
    return s


def say(sock, line):
    """Sends a line and returns the last line of the reply."""
    sock.sendall(line.encode() + b"\r\n")
    got = b""
    while True:
        part = sock.recv(4096)
        assert part, got
        got += part
        last = got.splitlines()[-1] if got.endswith(b"\r\n") else b""
        if last[3:4] == b" ":
            return last.decode()


def ends(sock):
    """Whether the other side ends the connection; what it still says is read."""
    try:
        while sock.recv(4096):
            pass
    except (ConnectionError, ssl.SSLError):
        pass
    return True


# ---- mail ---------------------------------------------------------------------------


def test_mail_over_starttls_and_tls_from_the_first_byte(tmp_path, made):
    with Sink() as sink, Relay(tmp_path / "r", made,
                               relayhost=f"[127.0.0.1]:{sink.port}") as p:
        with starttls(p.port) as c:
            c.sendmail("a@src.test", ["b@dst.test"], MESSAGE)
        with smtplib.SMTP_SSL("127.0.0.1", p.tls_port, "client.test", timeout=20,
                              context=context(versions=TLS12)) as c:
            assert not c.has_extn("starttls")
            c.sendmail("a@src.test", ["c@dst.test"], MESSAGE)
        with p.client() as c:
            c.sendmail("a@src.test", ["d@dst.test"], MESSAGE)
        got = {m.recipients[0]: m.content.decode() for m in sink.wait(3)}
        assert "\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)\r\n" \
            in got["b@dst.test"]
        assert "key-exchange X25519 server-signature ECDSA (256 bits) server-digest SHA256)\r\n" \
            "\t(No client certificate requested)\r\n" in got["b@dst.test"]
        assert "with ESMTPS id" in got["b@dst.test"]
        assert "using TLSv1.2 with cipher ECDHE-ECDSA-AES" in got["c@dst.test"]
        assert "with ESMTPS id" in got["c@dst.test"]
        assert "using TLS" not in got["d@dst.test"] and "with ESMTP id" in got["d@dst.test"]
        p.wait_log(r"Anonymous TLS connection established from unknown\[127.0.0.1\]: TLSv1.3 with "
                   r"cipher TLS_AES_256_GCM_SHA384 \(256/256 bits\) key-exchange X25519 ")
        p.wait_log(r"disconnect from unknown\[127.0.0.1\] ehlo=2 mail=1 rcpt=1 data=1 quit=1 "
                   r"starttls=1 commands=7$|starttls=1")


def test_large_mail_over_tls(tmp_path, made):
    body = b"Subject: x\r\n\r\n" + b"0123456789abcdef" * 4 * 1024 + b"\r\n"
    content = body + (b"x" * 98 + b"\r\n") * 50000
    with Sink() as sink, Relay(tmp_path / "r", made, line_length_limit="1m",
                               relayhost=f"[127.0.0.1]:{sink.port}") as p:
        with smtplib.SMTP_SSL("127.0.0.1", p.tls_port, "client.test", timeout=60,
                              context=context()) as c:
            c.sendmail("a@src.test", ["b@dst.test"], content)
        assert sink.wait(1)[0].content.endswith(content[-100000:])


def test_B04_any_split_over_records(relay):
    dialogue = (b"EHLO c.test\r\nMAIL FROM:<a@src.test>\r\nRCPT TO:<b@dst.test>\r\n"
                b"RSET\r\nNOOP\r\nQUIT\r\n")
    expected = [b"250", b"250", b"250", b"250", b"250", b"221"]
    for size in (1, 2, 7, 64, len(dialogue)):
        with wrapped(relay.tls_port) as s:
            got = b""
            while not got.endswith(b"\r\n"):
                got += s.recv(4096)
            for at in range(0, len(dialogue), size):
                s.sendall(dialogue[at:at + size])  # a record each
            got = b""
            while part := s.recv(4096):
                got += part
        finals = [l[:3] for l in got.splitlines() if l[3:4] == b" "]
        assert finals == expected, size


# ---- STARTTLS ---------------------------------------------------------------------------


def test_B10_bytes_behind_starttls(relay):
    with raw(relay.port) as s:
        assert say(s, "EHLO c.test").startswith("250")
        s.sendall(b"STARTTLS\r\nMAIL FROM:<evil@src.test>\r\n")
        assert s.recv(4096).startswith(b"501 5.5.1")
        assert ends(s)
    relay.wait_log("improper command pipelining after STARTTLS from unknown")


def test_B11_state_from_before_tls_is_forgotten(tmp_path, made):
    with Relay(tmp_path / "r", made, smtpd_helo_required="yes") as p, raw(p.port) as s:
        assert say(s, "EHLO before.test").startswith("250")
        assert say(s, "MAIL FROM:<a@src.test>").startswith("250")
        assert say(s, "STARTTLS").startswith("503")
        assert say(s, "RSET").startswith("250")
        assert say(s, "STARTTLS").startswith("220")
        with context().wrap_socket(s) as t:
            assert say(t, "RCPT TO:<b@dst.test>").startswith("503")
            assert say(t, "MAIL FROM:<a@src.test>").startswith("503")  # EHLO is forgotten, too
            assert say(t, "EHLO after.test").startswith("250")
            assert say(t, "MAIL FROM:<a@src.test>").startswith("250")


def test_B12_starttls_twice(relay):
    with starttls(relay.port) as c:
        assert "starttls" not in c.esmtp_features
        assert c.docmd("STARTTLS")[0] == 503
        assert c.noop()[0] == 250
    with raw(relay.port) as s:
        assert say(s, "STARTTLS now").startswith("501")
    with wrapped(relay.tls_port) as s:
        s.recv(500)
        assert say(s, "STARTTLS").startswith("503")


def test_encryption_required(tmp_path, made):
    with Relay(tmp_path / "r", made, smtpd_tls_security_level="encrypt") as p:
        with raw(p.port) as s:
            assert say(s, "MAIL FROM:<a@src.test>").startswith("530 5.7.0 Must issue a STARTTLS")
            assert say(s, "EHLO c.test").startswith("250")
            assert say(s, "NOOP").startswith("250")
            assert say(s, "RCPT TO:<a@src.test>").startswith("530")
            s.sendall(b"BDAT 20\r\nQUIT\r\n")  # content must not be taken for a command
            assert s.recv(500).startswith(b"530")
            assert ends(s)
        with starttls(p.port) as c:
            assert c.mail("a@src.test")[0] == 250


def test_without_tls_there_is_none(tmp_path):
    with Postern(tmp_path / "r") as p, raw(p.port) as s:
        assert not p.pids("keyd")
        assert say(s, "STARTTLS").startswith("502")


# ---- handshakes that go wrong ----------------------------------------------------------------


def test_B69_server_names(relay, made):
    for name in ("nobody.test", "x" * 63 + ".test", "-.test"):
        with starttls(relay.port, name=name) as c:
            assert common_name(c.sock) == "relay.test"
    for name in (b"a\0b.test", b"x" * 5000):
        with raw(relay.port) as s:
            say(s, "EHLO c.test")
            assert say(s, "STARTTLS").startswith("220")
            s.sendall(client_hello(name))
            # OpenSSL takes it for no name at all and says so, before anybody is asked for a
            # certificate: a fatal alert, unrecognized_name
            assert s.recv(7) == b"\x15\x03\x03\x00\x02\x02\x70"
            assert ends(s)
    for name in (b"name.test", b""):  # the same hello with a good name, or none, is answered
        with raw(relay.port) as s:
            say(s, "EHLO c.test")
            assert say(s, "STARTTLS").startswith("220")
            s.sendall(client_hello(name))
            assert s.recv(6)[0] == 22
    relay.wait_log(r"SSL_accept error from unknown\[127.0.0.1\]: ")


def openssl_client(port, *options):
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-brief", *options],
        input=b"QUIT\r\n", capture_output=True, timeout=30)
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


def test_B70_old_protocols_null_ciphers_renegotiation(relay):
    for options in (["-tls1"], ["-tls1_1"], ["-tls1_2", "-cipher", "eNULL:@SECLEVEL=0"],
                    ["-tls1_2", "-cipher", "aNULL:@SECLEVEL=0"],
                    ["-tls1_2", "-cipher", "AES128-GCM-SHA256"],  # key exchange by RSA
                    ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"]):  # CBC, on a port of high
        status, text = openssl_client(relay.tls_port, *options, "-cipher", "ALL:@SECLEVEL=0") \
            if "-cipher" not in options else openssl_client(relay.tls_port, *options)
        assert status != 0, (options, text)
    assert openssl_client(relay.tls_port, "-tls1_2")[0] == 0
    said = b""
    # its input stays open: at its end openssl leaves, whether it has an answer or not
    with subprocess.Popen(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{relay.tls_port}", "-tls1_2"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as client:
        # a greeting that comes while it renegotiates is an error to openssl
        for asked, until in ((b"", b"220 "), (b"R\n", b"no renegotiation")):
            client.stdin.write(asked)
            client.stdin.flush()
            while until not in said and select.select([client.stdout], [], [], 30)[0]:
                part = os.read(client.stdout.fileno(), 65536)
                said += part
                if not part:
                    break
        client.kill()
    assert b"no renegotiation" in said


def test_B71_huge_certificates_and_chains_of_clients(tmp_path, made):
    san = ",".join(f"DNS:n{i}.test" for i in range(10000))
    config = tmp_path / "san.cnf"
    config.write_text(f"[req]\ndistinguished_name=dn\nx509_extensions=e\nprompt=no\n[dn]\n"
                      f"CN=huge.test\n[e]\nsubjectAltName={san}\n")
    huge, huge_key = str(tmp_path / "huge.pem"), str(tmp_path / "huge.key")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:P-256", "-nodes", "-config", str(config), "-days", "30",
                    "-keyout", huge_key, "-out", huge], check=True, capture_output=True)
    ca = Authority(str(tmp_path))
    short, deep = ca.below(3, "short.test"), ca.below(20, "deep.test")
    with Relay(tmp_path / "r", made, smtpd_tls_ask_ccert="yes",
               smtpd_tls_CAfile=ca.certificate, smtpd_tls_loglevel="2") as p:
        ctx = context()
        ctx.load_cert_chain(huge, huge_key)
        with pytest.raises((ssl.SSLError, OSError)):
            with wrapped(p.tls_port, ctx) as s:
                s.recv(100)
        p.wait_log("SSL_accept error from .*: excessive message size")
        ctx = context()  # such a chain is verified as long as it is short
        ctx.load_cert_chain(short.chain, short.key)
        with wrapped(p.tls_port, ctx) as s:
            assert s.recv(100).startswith(b"220")
        p.wait_log(r" Trusted TLS connection established from unknown\[127.0.0.1\]: ")
        ctx = context()
        ctx.load_cert_chain(deep.chain, deep.key)
        with wrapped(p.tls_port, ctx) as s:
            assert s.recv(100).startswith(b"220")
        p.wait_log(r"certificate verification failed for unknown\[127.0.0.1\]: certificate chain "
                   r"too long\n")
        p.wait_log(r" Untrusted TLS connection established from unknown\[127.0.0.1\]: ")
        assert p.log().count(" Trusted TLS") == 1


def test_B74_a_handshake_that_dribbles(tmp_path, made):
    with Relay(tmp_path / "r", made, smtpd_starttls_timeout="2s") as p:
        hello = client_hello(b"relay.test")
        with raw(p.port) as s:
            say(s, "EHLO c.test")
            assert say(s, "STARTTLS").startswith("220")
            s.settimeout(0.3)
            for at in range(0, len(hello) - 1):  # never whole, never silent for long
                try:
                    s.sendall(hello[at:at + 1])
                    if s.recv(100) == b"":
                        break
                except TimeoutError:
                    continue
                except ConnectionError:
                    break
            else:
                raise AssertionError("the connection is still open")
            assert at < 30
        p.wait_log("timeout after STARTTLS from unknown")
        with socket.create_connection(("127.0.0.1", p.tls_port), 20) as s:
            assert ends(s)
        p.wait_log("timeout after CONNECT from unknown")


# ---- certificates -----------------------------------------------------------------------------


def test_certificates_by_name_and_kind(tmp_path, made):
    table = tmp_path / "sni"
    table.write_text(f"# names\nother.test {made.other.file}\n.sub.test {made.other.file}\n")
    with Relay(tmp_path / "r", made, smtpd_tls_chain_files=f"{made.relay.file} {made.rsa.file}",
               tls_server_sni_maps=f"texthash:{table}") as p:
        for name, shown in (("relay.test", "relay.test"), ("other.test", "other.test"),
                            ("OTHER.test", "other.test"), ("a.b.sub.test", "other.test"),
                            ("sub.test", "relay.test")):
            with starttls(p.port, name=name) as c:
                assert common_name(c.sock) == shown, name
        for cipher, kind in (("ECDHE-RSA-AES256-GCM-SHA384", b"RSA"),
                             ("ECDHE-ECDSA-AES256-GCM-SHA384", b"ECDSA")):
            ctx = context(versions=TLS12)
            ctx.set_ciphers(cipher)
            with starttls(p.port, ctx) as c:
                assert c.sock.cipher()[0] == cipher, kind


def test_cert_file_and_key_file(tmp_path, made):
    with Postern(tmp_path / "r", smtpd_tls_security_level="may",
                 smtpd_tls_cert_file=made.rsa.certificate, smtpd_tls_key_file=made.rsa.key,
                 smtpd_tls_eccert_file=made.relay.certificate,
                 smtpd_tls_eckey_file=made.relay.key) as p, starttls(p.port) as c:
        assert c.sock.version() == "TLSv1.3"


def test_a_renewed_certificate_is_taken_without_a_restart(tmp_path, made):
    first, second = make(tmp_path, "first.test"), make(tmp_path, "second.test")
    third = make(tmp_path, "third.test")
    with Relay(tmp_path / "r", made, smtpd_tls_chain_files=first.file) as p:
        smtpd, keyd = p.pids("smtpd"), p.pids("keyd")
        with starttls(p.port) as old:
            assert common_name(old.sock) == "first.test"
            write_secret(first.file, open(second.file, encoding="ascii").read())

            def shown():
                with starttls(p.port) as c:
                    return common_name(c.sock)
            wait_until(lambda: shown() == "second.test", 20, "the renewed certificate")
            assert old.noop()[0] == 250
        assert (p.pids("smtpd"), p.pids("keyd")) == (smtpd, keyd)
        # one that does not fit its key is not taken, and the log says so
        broken = (open(third.key, encoding="ascii").read()
                  + open(second.certificate, encoding="ascii").read())
        write_secret(first.file, broken)
        p.wait_log("renewed certificate: .*the private key is not that of the first certificate"
                   ".*the old one stays in use")
        assert shown() == "second.test"
        write_secret(first.file, open(third.file, encoding="ascii").read())
        p.process.send_signal(signal.SIGHUP)
        p.wait_log("reload: configuration .* is in effect")
        wait_until(lambda: shown() == "third.test", 20, "the certificate after a reload")


def refusal(tmp_path, made, **config):
    """What master says to a configuration that it refuses."""
    p = Relay(tmp_path / "refused", made, start=False, **config)
    done = subprocess.run([os.path.join(os.environ["POSTERN_BUILD"], "bin", "master"), "-t", "-c",
                           p.directory], capture_output=True, timeout=30)
    assert done.returncode != 0, done.stdout
    return done.stderr.decode()


def test_B85_a_private_key_that_others_can_read_or_write(tmp_path, made):
    mine = make(tmp_path, "mine.test")
    for mode, who in ((0o640, "its group"), (0o604, "everybody")):
        os.chmod(mine.file, mode)
        text = refusal(tmp_path, made, smtpd_tls_chain_files=mine.file)
        assert f"{mine.file}: holds a private key that {who} can read; run: chmod 600" in text
    for mode in (0o620, 0o602):
        os.chmod(mine.file, mode)
        text = refusal(tmp_path, made, smtpd_tls_chain_files=mine.file)
        assert mine.file in text and f"run: chmod go-w {mine.file}" in text, text


def test_configurations_that_cannot_work(tmp_path, made):
    both = made.path / "wrong.chain"
    write_secret(str(both), open(made.other.key, encoding="ascii").read()
                 + open(made.relay.certificate, encoding="ascii").read())
    rows = [
        ({"smtpd_tls_chain_files": ""}, "without a certificate there is no TLS"),
        ({"smtpd_tls_chain_files": "/no/such/file"}, "/no/such/file: No such file"),
        ({"smtpd_tls_chain_files": made.relay.certificate}, "there is no private key for it"),
        ({"smtpd_tls_chain_files": made.relay.key}, "there is no certificate in it"),
        ({"smtpd_tls_chain_files": str(both)}, "the private key is not that of the first"),
        ({"smtpd_tls_req_ccert": "yes"}, "smtpd_tls_req_ccert: needs smtpd_tls_CAfile"),
        ({"tls_server_sni_maps": "hash:/x"}, "tls_server_sni_maps: hash:/x: write texthash:/path"),
        ({"smtpd_tls_protocols": "TLSv1"}, "smtpd_tls_protocols: "),
        ({"relay_clientcerts": "AA:BB"}, "relay_clientcerts: AA:BB: is not the SHA-256"),
    ]
    for config, error in rows:
        assert error in refusal(tmp_path, made, **config), config


# ---- sessions ----------------------------------------------------------------------------------


def resumed(port, ctx, session):
    with wrapped(port, ctx, session) as s:
        assert s.recv(100).startswith(b"220")
        return s.session_reused


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_B73_tickets_are_of_one_listener(tmp_path, made, version):
    with Relay(tmp_path / "r", made, count=3) as p:
        ctx = context(versions=(version, version))
        with wrapped(p.tls_port, ctx) as s:
            assert s.recv(100).startswith(b"220")
            session = s.session
        # whichever of its three processes takes the connection
        assert all(resumed(p.tls_port, ctx, session) for _ in range(12))
        assert not resumed(p.second_port, ctx, session)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_B73_sessions_are_of_one_server_name(relay, tmp_path, version):
    """RFC 6066 section 3, by openssl itself: names with a certificate and without, both ways."""
    names = ("relay.test", "name.test", "nobody.test")

    def connect(name, *options):
        """Until the server has said goodbye, and so sent its tickets."""
        with subprocess.Popen(
                ["timeout", "30", "openssl", "s_client", "-connect", f"127.0.0.1:{relay.tls_port}",
                 version, "-servername", name, "-ign_eof", *options],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as c:
            text = ""
            for line in c.stdout:
                text += line.decode(errors="replace")
                if line.startswith(b"220 "):
                    c.stdin.write(b"QUIT\r\n")
                    c.stdin.flush()
        assert "221 2.0.0 Bye" in text, text
        return re.search(r"^(New|Reused), TLSv1", text, re.M)[1]

    for first in names:
        session = str(tmp_path / first)
        assert connect(first, "-sess_out", session) == "New"
        for second in names:
            assert connect(second, "-sess_in", session) == ("Reused" if first == second else "New")


def test_keys_of_tickets_change(tmp_path, made):
    with Relay(tmp_path / "r", made, smtpd_tls_session_cache_timeout="2s") as p:
        ctx = context(versions=TLS12)
        with wrapped(p.tls_port, ctx) as s:
            s.recv(100)
            session = s.session
        assert resumed(p.tls_port, ctx, session)
        wait_until(lambda: not resumed(p.tls_port, ctx, session), 20, "the end of the ticket")


# ---- clients' certificates -------------------------------------------------------------------------


def test_client_certificates_permit_relaying(tmp_path, made):
    config = {"mynetworks": "192.0.2.1/32", "smtpd_tls_ask_ccert": "yes",
              "smtpd_tls_CAfile": made.ca.certificate, "smtpd_tls_loglevel": "2",
              "relay_clientcerts": made.friend.fingerprint().lower(),
              "smtpd_authorized_xclient_hosts": "127.0.0.1/32"}
    with Relay(tmp_path / "r", made, **config) as p:
        for client, code in ((made.friend, 250), (made.stranger, 554), (None, 554)):
            with starttls(p.port, context(client)) as c:
                c.mail("a@src.test")
                assert c.rcpt("b@dst.test")[0] == code
        p.wait_log("^.*Trusted TLS connection established from unknown")
        p.wait_log("Untrusted TLS connection established from unknown")
        p.wait_log("subject_CN=friend.test, issuer_CN=authority.test, fingerprint="
                   + made.friend.fingerprint())
        # XCLIENT: the certificate is that of who speaks for the client
        with starttls(p.port, context(made.friend)) as c:
            assert c.docmd("XCLIENT ADDR=203.0.113.9")[0] == 220
            c.ehlo()
            c.mail("a@src.test")
            assert c.rcpt("b@dst.test")[0] == 554


def test_client_certificates_required(tmp_path, made):
    with Relay(tmp_path / "r", made, smtpd_tls_req_ccert="yes", smtpd_tls_security_level="encrypt",
               smtpd_tls_CAfile=made.ca.certificate) as p:
        with wrapped(p.tls_port, context(made.friend)) as s:
            assert s.recv(100).startswith(b"220")
        for client in (made.stranger, None):
            with pytest.raises((ssl.SSLError, OSError)):
                with wrapped(p.tls_port, context(client)) as s:
                    s.recv(100)


# ---- keyd -----------------------------------------------------------------------------------------


def test_F15_keyd_killed(tmp_path, made):
    with Relay(tmp_path / "r", made, service_restart_delay="3s") as p:
        with starttls(p.port) as c:
            os.kill(p.pids("keyd")[0], signal.SIGKILL)
            p.wait_log("keyd is gone: .*; TLS is refused with 454 until it is back")
            assert c.noop()[0] == 250  # who has TLS already keeps it
        with raw(p.port) as s:
            say(s, "EHLO c.test")
            assert say(s, "STARTTLS").startswith("454 4.7.0")
            assert say(s, "MAIL FROM:<a@src.test>").startswith("250")

        def works():
            try:
                with starttls(p.port) as c:
                    return common_name(c.sock) == "relay.test"
            except smtplib.SMTPException:
                return False
        wait_until(works, 20, "TLS after keyd's restart")


def test_F18_keyd_that_stands_still_is_replaced(tmp_path, made):
    """Mail in the clear is taken all the time; TLS works again with its successor."""
    with Relay(tmp_path / "r", made, service_watchdog_timeout="2s",
               service_restart_delay="0s") as p:
        (keyd,) = p.pids("keyd")
        os.kill(keyd, signal.SIGSTOP)
        p.send("a@src.test", ["b@dst.test"], MESSAGE)
        p.wait_log(rf"\(process {keyd}\) does not respond", 30)
        wait_until(lambda: p.pids("keyd") not in ([], [keyd]), 30, "another keyd")

        def works():
            try:
                with starttls(p.port) as c:
                    return common_name(c.sock) == "relay.test"
            except smtplib.SMTPException:
                return False
        wait_until(works, 20, "TLS")


def test_F15_keyd_dies_in_a_handshake(tmp_path, made):
    with Relay(tmp_path / "r", made) as p:
        keyd = p.pids("keyd")[0]
        os.kill(keyd, signal.SIGSTOP)
        with raw(p.port) as s:
            say(s, "EHLO c.test")
            assert say(s, "STARTTLS").startswith("220")
            s.settimeout(20)
            with context(versions=TLS12).wrap_socket(s, do_handshake_on_connect=False) as t:
                t.setblocking(False)
                with pytest.raises(ssl.SSLWantReadError):
                    t.do_handshake()
                # others are served meanwhile, with and without TLS of their own
                with p.client() as c:
                    c.sendmail("a@src.test", ["b@dst.test"], MESSAGE)
                os.kill(keyd, signal.SIGKILL)
                t.setblocking(True)
                t.settimeout(20)
                with pytest.raises((ssl.SSLError, OSError)):
                    t.do_handshake()
        p.wait_log("SSL_accept error from unknown")


def test_a_slow_signature_holds_up_nobody_else(tmp_path, made):
    with Relay(tmp_path / "r", made) as p, starttls(p.port) as before:
        keyd = p.pids("keyd")[0]
        os.kill(keyd, signal.SIGSTOP)
        try:
            with raw(p.port) as s:
                say(s, "EHLO c.test")
                assert say(s, "STARTTLS").startswith("220")
                with context().wrap_socket(s, do_handshake_on_connect=False) as t:
                    t.setblocking(False)
                    with pytest.raises(ssl.SSLWantReadError):
                        t.do_handshake()
                    before.sendmail("a@src.test", ["b@dst.test"], MESSAGE)
                    os.kill(keyd, signal.SIGCONT)
                    t.setblocking(True)
                    t.settimeout(20)
                    t.do_handshake()
                    assert say(t, "EHLO c.test").startswith("250")
        finally:
            os.kill(keyd, signal.SIGCONT)
