"""Debian's Postfix and Exim with Postern as the smarthost that they log in to: on every port,
with every mechanism that they know."""
import os

import pytest
from certs import Authority
from peers import Exim, Postfix, needs_root
from postern import wait_until
from shop import MESSAGE, shop_relay, shop_sink  # noqa: F401

USER, PASSWORD = "web@acme.test", "secret"
PORTS = ("port", "submission", "submissions", "alternate")


class PostfixLogin(Postfix):
    mechanism, immediate = "PLAIN", False

    def configure(self):
        super().configure()
        with open(os.path.join(self.etc, "postfix/main.cf"), "a", encoding="utf-8") as f:
            f.write("smtp_sasl_auth_enable = yes\nsmtp_sasl_security_options = noanonymous\n"
                    "smtp_sasl_password_maps = texthash:/etc/postfix/login\n"
                    f"smtp_sasl_mechanism_filter = {self.mechanism}\n"
                    f"smtp_tls_wrappermode = {'yes' if self.immediate else 'no'}\n")
        self.write("postfix/login", f"[127.0.0.1]:{self.relayhost} {USER}:{PASSWORD}\n")


class EximLogin(Exim):
    mechanism, immediate = "PLAIN", False

    def configure(self):
        super().configure()
        path = os.path.join(self.etc, "exim4/exim4.conf")
        with open(path, encoding="utf-8") as f:
            text = f.read()
        text = text.replace("out:\n  driver = smtp\n", "out:\n  driver = smtp\n"
                            "  hosts_require_auth = *\n"
                            + ("  protocol = smtps\n" if self.immediate else ""))
        secret = {"PLAIN": f"^{USER}^{PASSWORD}", "LOGIN": f": {USER} : {PASSWORD}"}[self.mechanism]
        self.write("exim4/exim4.conf", text + "begin authenticators\nlogin:\n  driver = plaintext\n"
                   f"  public_name = {self.mechanism}\n  client_send = {secret}\n")


@needs_root
@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("kind, mechanism", [
    (PostfixLogin, "PLAIN"), (PostfixLogin, "LOGIN"), (PostfixLogin, "SCRAM-SHA-256"),
    (EximLogin, "PLAIN"), (EximLogin, "LOGIN")], ids=lambda v: getattr(v, "__name__", v))
def test_server_with_postern_as_smarthost_logs_in(shop, sink, place, kind, mechanism, port):
    def has():
        return [m for m in sink.messages if m.recipients == [recipient]]
    certificate = Authority(str(place)).server("smarthost.test")
    recipient = f"{kind.__name__}-{mechanism}-{port}@dst.test".lower()
    server = type(kind.__name__, (kind,), {"mechanism": mechanism,
                                           "immediate": port == "submissions"})
    with server(place, relayhost=getattr(shop, port), certificate=certificate) as s:
        s.submit(USER, recipient, MESSAGE)
        got = wait_until(has, 60, "the message")
    assert b"with ESMTPSA id" in got[0].content
    shop.wait_log(f"sasl_method={mechanism}, sasl_username={USER}$")
