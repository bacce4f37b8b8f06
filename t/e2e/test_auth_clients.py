"""Other people's programs log in: clients, and Dovecot as the one who knows the passwords.
Servers with Postern as their smarthost are in test_auth_servers.py."""
import os
import smtplib
import subprocess

import pytest
from peers import Dovecot, folder, needs_root
from postern import wait_until
from shop import MESSAGE, Shop, plain, shop_relay, shop_sink  # noqa: F401
from test_auth import scram
from test_peers_submit import CLIENTS_FOLDER

USER, PASSWORD = "web@acme.test", "secret"


def run(*argv, **options):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, **options)
    return done.returncode, done.stdout + done.stderr


def swaks(p, port, recipient, path, password=PASSWORD, mechanism="PLAIN"):
    tls = "--tls-on-connect" if port == p.submissions else "--tls"
    return run("swaks", "--server", f"127.0.0.1:{port}", tls, "--auth", mechanism, "--auth-user",
               USER, "--auth-password", password, "--from", USER, "--to", recipient, "--data",
               f"@{path}", "--helo", "client.test")


def curl(p, port, recipient, path, password=PASSWORD, mechanism="PLAIN"):
    scheme = "smtps" if port == p.submissions else "smtp"
    return run("curl", "-sS", "-k", "--ssl-reqd", "--url", f"{scheme}://127.0.0.1:{port}/client.test",
               "--user", f"{USER}:{password}", "--login-options", f"AUTH={mechanism}",
               "--mail-from", USER, "--mail-rcpt", recipient, "--upload-file", path)


def msmtp(p, port, recipient, path, password=PASSWORD, mechanism="PLAIN"):
    with open(path, "rb") as f:
        return run("msmtp", "--file=/dev/null", "--host=127.0.0.1", f"--port={port}",
                   "--domain=client.test", f"--from={USER}", "--tls=on", "--tls-certcheck=off",
                   f"--tls-starttls={'off' if port == p.submissions else 'on'}",
                   f"--auth={mechanism.lower()}", f"--user={USER}",
                   f"--passwordeval=echo {password}", "--", recipient, stdin=f)


def nodemailer(p, port, recipient, path, password=PASSWORD, mechanism="PLAIN"):
    mode = "tls" if port == p.submissions else "starttls"
    return run("node", os.path.join(CLIENTS_FOLDER, "nodemailer.js"), str(port), USER, recipient,
               path, mode, p.path("relay.test-ec.pem"),
               env={**os.environ, "NODE_PATH": os.path.join(folder(), "nodemailer/usr/share/nodejs"),
                    "SMTP_USER": USER, "SMTP_PASSWORD": password, "SMTP_METHOD": mechanism,
                    "NODE_TLS_REJECT_UNAUTHORIZED": "0"})


def has(sink, recipient):
    return [m for m in sink.messages if m.recipients == [recipient]]


@pytest.mark.parametrize("client, mechanism", [
    (swaks, "PLAIN"), (swaks, "LOGIN"), (curl, "PLAIN"), (curl, "LOGIN"), (msmtp, "PLAIN"),
    (msmtp, "LOGIN"), (msmtp, "SCRAM-SHA-256"), (nodemailer, "PLAIN"), (nodemailer, "LOGIN")],
    ids=lambda v: getattr(v, "__name__", v))
def test_client_logs_in_on_every_port(shop, sink, tmp_path, client, mechanism):
    path = tmp_path / "message"
    path.write_bytes(MESSAGE)
    for name in ("port", "submission", "submissions", "alternate"):
        recipient = f"{client.__name__}-{mechanism}-{name}@dst.test".lower()
        status, output = client(shop, getattr(shop, name), recipient, str(path),
                                mechanism=mechanism)
        assert status == 0, output
        got = wait_until(lambda r=recipient: has(sink, r))
        assert b"with ESMTPSA id" in got[0].content
    shop.wait_log(f"sasl_method={mechanism}, sasl_username={USER}$")
    status, output = client(shop, shop.submission, "no@dst.test", str(path), password="wrong",
                            mechanism=mechanism)
    assert status != 0, output


def test_fail2ban_finds_failed_logins(tmp_path, sink):
    path = tmp_path / "message"
    path.write_bytes(MESSAGE)
    with Shop(tmp_path / "shop", sink, compatible_log_names="yes") as p:
        for mechanism in ("PLAIN", "LOGIN"):
            assert swaks(p, p.submission, "no@dst.test", str(path), password="wrong",
                         mechanism=mechanism)[0] != 0
        for mode in ("auth", "aggressive"):
            status, output = run("fail2ban-regex", "-r", "-o", "ip", p.path("log"),
                                 f"postfix[mode={mode}]")
            assert set(output.split()) == {"127.0.0.1"}, (mode, status, output)
            # aggressive counts the end of such a session, too
            assert mode != "auth" or len(output.split()) == 2


# ---- Dovecot ----------------------------------------------------------------------------------


class DovecotAuth(Dovecot):
    """Its auth service at a port and at a socket."""

    def configure(self):
        from postern import free_port
        super().configure()
        self.auth_port = free_port()
        self.socket = os.path.join(self.directory, "auth")
        path = os.path.join(self.etc, "dovecot/dovecot.conf")
        with open(path, encoding="utf-8") as f:
            text = f.read()
        text = text.replace("args = nopassword=y", f"args = password={PASSWORD}")
        self.write("dovecot/dovecot.conf", text + (
            "auth_mechanisms = plain login scram-sha-256\nauth_failure_delay = 1 secs\n"
            "service auth {\n"
            f"  unix_listener {self.socket} {{\n    mode = 0666\n  }}\n"
            f"  inet_listener {{\n    address = 127.0.0.1\n    port = {self.auth_port}\n  }}\n}}\n"))


@needs_root
def test_B16_failures_of_dovecot_s_users_are_limited(place, sink):
    """As those of our own: slower, then not at all, the right password included."""
    with DovecotAuth(place) as dovecot, \
            Shop(os.path.join(place, "shop"), sink, smtpd_sasl_type="dovecot",
                 smtpd_sasl_path=dovecot.socket, auth_failure_limit="3") as p:
        wait_until(lambda: features(p).get("auth"), 20, "Dovecot's mechanisms")
        with p.connect() as c:
            assert attempt(c, "PLAIN", PASSWORD) == 235
        for mechanism in ("PLAIN", "LOGIN", "SCRAM-SHA-256"):
            with p.connect() as c:
                assert attempt(c, mechanism, "wrong") == 535
        for mechanism in ("PLAIN", "SCRAM-SHA-256"):
            with p.connect() as c:
                assert attempt(c, mechanism, PASSWORD) == 421
        p.wait_log(r"SASL SCRAM-SHA-256 authentication failed: too many failed logins from this "
                   "address, sasl_username=")


class DovecotThatCannotTell(DovecotAuth):
    """Its passwords are a program's to check, which fails for now (exit status 111) while the
    folder has no file "well"."""

    def configure(self):
        super().configure()
        self.well = os.path.join(self.store, "well")
        program = os.path.join(self.directory, "checkpassword")
        with open(program, "w", encoding="utf-8") as f:
            f.write(f"#!/bin/sh\nif [ -e {self.well} ]; then exit 1; fi\nexit 111\n")
        os.chmod(program, 0o755)
        path = os.path.join(self.etc, "dovecot/dovecot.conf")
        with open(path, encoding="utf-8") as f:
            text = f.read()
        assert f"driver = static\n  args = password={PASSWORD}" in text
        self.write("dovecot/dovecot.conf", text.replace(
            f"driver = static\n  args = password={PASSWORD}",
            f"driver = checkpassword\n  args = {program}"))


@needs_root
def test_what_dovecot_cannot_check_is_no_wrong_password(place, sink):
    """454, nothing that fail2ban would find, and nothing counted, however often; a wrong
    password counts as ever."""
    with DovecotThatCannotTell(place) as dovecot, \
            Shop(os.path.join(place, "shop"), sink, smtpd_sasl_type="dovecot",
                 smtpd_sasl_path=dovecot.socket, auth_failure_limit="2") as p:
        wait_until(lambda: features(p).get("auth"), 20, "Dovecot's mechanisms")
        for _ in range(4):
            with p.connect() as c:
                assert attempt(c, "PLAIN", PASSWORD) == 454
        p.wait_log("SASL PLAIN authentication is not possible now: Dovecot has no answer now")
        assert "authentication failed" not in p.log()
        with open(dovecot.well, "w", encoding="utf-8"):
            pass
        for code in (535, 535, 421):
            with p.connect() as c:
                assert attempt(c, "PLAIN", "wrong") == code
        p.wait_log("SASL PLAIN authentication failed: wrong user or password, sasl_username=web")


@needs_root
@pytest.mark.parametrize("way", ["inet", "unix"])
def test_dovecot_knows_the_passwords(place, sink, way):
    with DovecotAuth(place) as dovecot:
        where = f"inet:127.0.0.1:{dovecot.auth_port}" if way == "inet" else dovecot.socket
        with Shop(os.path.join(place, "shop"), sink, smtpd_sasl_type="dovecot",
                  smtpd_sasl_path=where) as p:
            p.wait_log("knows the passwords")
            # who is nobody's user may log in, and send nothing
            with p.connect() as c:
                assert attempt(c, "PLAIN", PASSWORD) == 235
                with pytest.raises(smtplib.SMTPSenderRefused, match="belongs to no account"):
                    c.sendmail(USER, ["no@dst.test"], MESSAGE)
            p.user("web", "of no use here")  # as this Dovecot calls it
            offered = wait_until(lambda: features(p).get("auth"), 20, "Dovecot's mechanisms")
            assert set(offered.split()) == {"PLAIN", "LOGIN", "SCRAM-SHA-256"}
            for mechanism in ("PLAIN", "LOGIN", "SCRAM-SHA-256"):
                for password, code in ((PASSWORD, 235), ("wrong", 535)):
                    with p.connect() as c:
                        assert attempt(c, mechanism, password) == code, (mechanism, password)
                        if code == 235:
                            c.sendmail(USER, [f"{way}-{mechanism}@dst.test".lower()], MESSAGE)
                wait_until(lambda m=mechanism: has(sink, f"{way}-{m}@dst.test".lower()))
                p.wait_log(f"sasl_method={mechanism}, sasl_username=web$|"
                           f"sasl_method={mechanism}, sasl_username={USER}$")
                p.wait_log(rf"warning: unknown\[127.0.0.1\]: SASL {mechanism} authentication "
                           "failed: ")
            wait_until(lambda: p.usage()["delivered"] == 3, what="the charges")
            assert p.usage(user="web")["delivered"] == 3
            with p.connect() as c:
                assert attempt(c, "PLAIN", PASSWORD) == 235
                with pytest.raises(smtplib.SMTPSenderRefused, match="not owned by account acme"):
                    c.sendmail("a@elsewhere.test", ["no@dst.test"], MESSAGE)
            with p.connect() as c:  # initial response, and a cancelled exchange
                assert c.docmd("AUTH", "LOGIN")[0] == 334
                assert c.docmd("*")[0] == 501
                assert c.docmd("AUTH", "PLAIN")[0] == 334
                assert c.docmd(plain(USER, PASSWORD))[0] == 235
            stays = p.connect()
            dovecot.process.kill()
            dovecot.process.wait()
            p.wait_log("logins get 454 until it answers")
            assert stays.docmd("AUTH", "PLAIN " + plain(USER, PASSWORD))[0] == 454
            assert stays.noop()[0] == 250
            assert PASSWORD not in p.log() and plain(USER, PASSWORD) not in p.log()


def features(p):
    with p.connect() as c:
        return c.esmtp_features


def attempt(c, mechanism, password):
    c.user, c.password = USER, password
    if mechanism == "SCRAM-SHA-256":
        return scram(c, USER, password)
    try:
        return c.auth(mechanism, c.auth_plain if mechanism == "PLAIN" else c.auth_login)[0]
    except smtplib.SMTPAuthenticationError as e:
        return e.smtp_code
