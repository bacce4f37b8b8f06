"""Classes of mail: by account, user, sender and header, and which of them may rise."""
import json
import os
import smtplib
import subprocess

import pytest

from accounts_rig import Quota, Refused
from postern import BIN, Postern, wait_until
from smtpd_rig import MESSAGE, Smtpd
from sink import Sink

NORMAL, TRANSACTIONAL, BULK = range(3)  # enum mail_class


@pytest.fixture
def quota():
    q = Quota(config=dict(mail_class_senders="news.acme.test=bulk, boss@acme.test=transactional"))
    yield q
    q.stop()


def reserved(quota, ticket, sender):
    answer = quota.reserve(ticket, sender=sender, authors=(sender,))
    assert answer.code == 0, answer
    return answer.mail_class, answer.class_most


def test_a_user_s_class_holds_instead_of_the_account_s(quota):
    quota.account("acme")
    quota.ask("user.add", login="letters", account="acme", password="secret", **{"class": "bulk"})
    quota.ask("user.add", login="resets", account="acme", password="secret")
    quota.ask("user.set", login="resets", **{"class": "transactional"})
    web, letters, resets = (quota.login(user).ticket for user in ("web", "letters", "resets"))
    assert reserved(quota, web, "a@acme.test") == (NORMAL, NORMAL)
    assert reserved(quota, letters, "a@acme.test") == (BULK, BULK)  # a header cannot climb
    assert reserved(quota, resets, "a@acme.test") == (TRANSACTIONAL, TRANSACTIONAL)
    quota.ask("account.set", account="acme", class_most="transactional")
    assert reserved(quota, letters, "a@acme.test") == (BULK, BULK)
    assert reserved(quota, web, "a@acme.test") == (NORMAL, TRANSACTIONAL)
    quota.ask("user.set", login="letters", class_most="normal")
    assert reserved(quota, letters, "a@acme.test") == (BULK, NORMAL)
    quota.ask("user.set", login="letters", class_most="", **{"class": ""})
    assert reserved(quota, letters, "a@acme.test") == (NORMAL, TRANSACTIONAL)
    assert quota.one("user.show", login="resets")["class"] == "transactional"


def test_a_sender_s_class_goes_before_the_user_s_and_lends_nobody_a_higher_one(quota):
    quota.account("acme")
    quota.ask("domain.add", account="acme", domain="list.acme.test", **{"class": "bulk"})
    quota.ask("domain.add", account="acme", domain="list.acme.test")  # stays as it is
    quota.ask("domain.add", account="acme", domain="Reset@list.acme.test", **{"class": "transactional"})
    quota.ask("user.add", login="letters", account="acme", password="secret", **{"class": "normal"})
    web, letters = quota.login("web").ticket, quota.login("letters").ticket
    assert reserved(quota, web, "x@list.acme.test") == (BULK, BULK)
    assert reserved(quota, web, "reset@LIST.acme.test") == (TRANSACTIONAL, TRANSACTIONAL)
    assert reserved(quota, letters, "reset@list.acme.test") == (NORMAL, NORMAL)
    assert reserved(quota, letters, "x@list.acme.test") == (BULK, BULK)
    listed, _ = quota.ask("domain.list", account="acme")
    assert {d["domain"]: d.get("class") for d in listed} == {
        "acme.test": None, "list.acme.test": "bulk", "reset@list.acme.test": "transactional"}
    records, _ = quota.ask("export")
    quota.ask("domain.add", account="acme", domain="list.acme.test", **{"class": ""})
    assert reserved(quota, web, "x@list.acme.test") == (NORMAL, NORMAL)
    quota.ask("import", records=[r for r in records if r["type"] == "domain"])
    assert reserved(quota, web, "x@list.acme.test") == (BULK, BULK)


def test_a_sub_account_has_the_classes_of_its_parent_s_domains(quota):
    quota.account("agency")
    quota.account("client", user="c", domain="", parent="agency")
    quota.ask("domain.add", account="agency", domain="list.acme.test", **{"class": "bulk"})
    assert reserved(quota, quota.login("c").ticket, "x@list.acme.test") == (BULK, BULK)


def test_senders_of_the_configuration_rise_only_within_what_the_account_may(quota):
    quota.account("acme")
    quota.ask("domain.add", account="acme", domain="news.acme.test")
    web = quota.login().ticket
    assert reserved(quota, web, "x@news.acme.test") == (BULK, NORMAL)
    assert reserved(quota, web, "boss@acme.test") == (NORMAL, NORMAL)
    quota.ask("account.set", account="acme", class_most="transactional")
    assert reserved(quota, web, "boss@acme.test") == (TRANSACTIONAL, TRANSACTIONAL)


@pytest.mark.parametrize("request_, members", [
    ("user.add", dict(login="x", account="acme", password="y")), ("user.set", dict(login="web")),
    ("domain.add", dict(account="acme", domain="d.test"))])
@pytest.mark.parametrize("word", ["urgent", "BULK", 7])
def test_a_class_that_is_none_is_refused(quota, request_, members, word):
    quota.account("acme")
    with pytest.raises(Refused, match="give normal, transactional or bulk"):
        quota.ask(request_, **members, **{"class": word})


@pytest.mark.parametrize("sender, header, gets", [
    (b"a@news.test", b"", BULK), (b"a@news.test", b"normal", BULK), (b"a@other.test", b"", NORMAL),
    (b"now@alerts.test", b"", TRANSACTIONAL), (b"Now@Alerts.test", b"bulk", BULK),
    (b"", b"", NORMAL), (b"a@sub.news.test", b"", NORMAL)])
def test_mail_of_no_account_has_its_sender_s_class(sender, header, gets):
    """The header lowers it, and cannot climb above it."""
    with Smtpd(mail_class_senders="news.test=bulk now@alerts.test=transactional alerts.test=bulk") as s, \
            s.client() as c:
        field = b"X-Mail-Class: " + header + b"\r\n" if header else b""
        c.transaction(field + MESSAGE, sender=sender.decode())
        assert s.accept(c).mail_class == gets


# ---- a whole relay ---------------------------------------------------------------------------


def user(p, *args):
    subprocess.run([os.path.join(BIN, "postern"), "-c", p.directory, "user", "add", *args], input="secret\n",
                   text=True, timeout=60, check=True, capture_output=True)


def test_users_of_one_account_and_a_sender_have_their_classes_in_a_whole_relay(tmp_path):
    with Sink() as sink, Postern(tmp_path, accounts_enable="yes", accounts_minfree="0",
                                 smtpd_sasl_auth_enable="yes", smtpd_tls_auth_only="no",
                                 relayhost=f"[127.0.0.1]:{sink.port}") as p:
        wait_until(lambda: p.ctl("account", "status", check=False).returncode == 0, 20, "quota")
        p.ctl("account", "add", "acme", "--class-most", "normal")
        p.ctl("domain", "add", "acme", "acme.test")
        p.ctl("domain", "add", "acme", "list.acme.test", "--class", "bulk")
        user(p, "web", "acme")
        user(p, "resets", "acme", "--class", "transactional")
        p.ctl("user", "set", "web", "--class", "normal")
        assert "transactional" in p.ctl("user", "list", "acme")
        for login, sender, header in (("web", "a@acme.test", ""), ("resets", "a@acme.test", ""),
                                      ("web", "b@list.acme.test", ""),
                                      ("web", "a@acme.test", "X-Mail-Class: transactional\r\n")):
            with smtplib.SMTP("127.0.0.1", p.port, timeout=20) as s:
                s.login(login, "secret")
                s.sendmail(sender, ["r@dst.test"], f"From: {sender}\r\n{header}Subject: x\r\n\r\nHello\r\n")
        classes = wait_until(lambda: len(c := accepted(p)) == 4 and c, 10, "four messages")
        assert classes == ["normal", "transactional", "bulk", "normal"]


def accepted(p):
    with open(p.path("events.json"), encoding="utf-8") as f:
        return [e["class"] for e in map(json.loads, f) if e["event"] == "accepted"]
