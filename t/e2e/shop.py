"""A relay with accounts, plans and TLS, and a server that takes its mail.

    from shop import MESSAGE, shop_relay, shop_sink  # noqa: F401  (fixtures "shop" and "sink")
"""
import base64
import json
import os
import smtplib
import subprocess

import pytest
from postern import BIN, Postern, free_port, wait_until
from sink import Sink
from tls_rig import context, make

PLANS = """
plan small { messages = 20
  at_limit = block
  size = 20000
  recipients = 3 }
plan big { messages = 100000
  at_limit = allow }
"""
MESSAGE = (b"From: Web <web@acme.test>\r\nTo: b@dst.test\r\nSubject: x\r\n"
           b"Message-ID: <1@acme.test>\r\n\r\nbody\r\n")


def plain(user, password):
    return base64.b64encode(f"\0{user}\0{password}".encode()).decode()


class Shop(Postern):
    """A relay with an account: 25-like without AUTH, 587-like, 465-like, 2525-like."""

    def __init__(self, directory, sink, **config):
        os.makedirs(str(directory), exist_ok=True)
        made = make(directory, "relay.test")
        self.submission, self.submissions, self.alternate = free_port(), free_port(), free_port()
        with open(os.path.join(str(directory), "plans.conf"), "w", encoding="utf-8") as f:
            f.write(PLANS)
        super().__init__(directory, start=False, **{
            **made.config, "accounts_enable": "yes", "plans_file": "plans.conf",
            "accounts_minfree": "0", "scram_iterations": "4096", "mynetworks": "192.0.2.0/24",
            "relayhost": f"[127.0.0.1]:{sink.port}", **config})
        login = ("-o smtpd_sasl_auth_enable=yes -o smtpd_service_kind=submission "
                 "-o smtpd_recipient_restrictions=permit_sasl_authenticated,reject")
        self.master_cf = "".join(
            f"127.0.0.1:{port} inet n - y - 1 smtpd {options}\n" for port, options in [
                (self.port, "-o smtpd_sasl_auth_enable=yes"),
                (self.submission, login + " -o smtpd_tls_security_level=encrypt"),
                (self.submissions, login + " -o smtpd_tls_wrappermode=yes"),
                (self.alternate, login)])
        self.write_config()
        self.start()
        wait_until(lambda: self.ctl("account", "status", check=False).returncode == 0, 20, "quota")
        self.wait_log("plans read from")
        self.ctl("account", "add", "acme", "--plan", "big", "--reference", "owner@acme.test")
        self.user("web@acme.test", "secret")
        self.ctl("domain", "add", "acme", "acme.test")

    def user(self, login, password, account="acme"):
        subprocess.run([os.path.join(BIN, "postern"), "-c", self.directory, "user", "add", login,
                        account], input=password + "\n", text=True, check=True, timeout=60)

    def usage(self, account="acme", user=None):
        return json.loads(self.ctl("usage", "show", account, *([user] if user else []), "--json"))

    def connect(self, port=None, tls=None, source=None):
        """A client in TLS that has said EHLO."""
        port = port or self.submission
        if port == self.submissions:
            c = smtplib.SMTP_SSL("127.0.0.1", port, "client.test", timeout=20, context=context())
        else:
            c = smtplib.SMTP("127.0.0.1", port, "client.test", timeout=20,
                             source_address=(source, 0) if source else None)
            if tls is not False:
                c.ehlo()
                c.starttls(context=context())
        c.ehlo()
        return c

    def login(self, user="web@acme.test", password="secret", **how):
        c = self.connect(**how)
        c.login(user, password)
        return c


@pytest.fixture(name="sink", scope="module")
def shop_sink():
    with Sink() as s:
        yield s


@pytest.fixture(name="shop", scope="module")
def shop_relay(tmp_path_factory, sink):
    with Shop(tmp_path_factory.mktemp("shop"), sink) as p:
        yield p
