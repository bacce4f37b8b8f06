"""Client certificates that belong to users: who shows one is the user, as after AUTH."""
import base64
import json
import os
import signal

import pytest
from accounts_rig import DENIED, NONE, OK, Quota, Refused
from ipc import Closed
from postern import wait_until
from shop import MESSAGE, Shop
from sink import Sink
from tls_rig import context, make, starttls

PRINT_A, PRINT_B = ":".join(["AB"] * 32), ":".join(["0C"] * 32)


# ---- quota alone -----------------------------------------------------------------------------


@pytest.fixture(name="quota")
def _quota():
    q = Quota("plan month { messages = 10\n at_limit = block\n size = 5000\n recipients = 7 }")
    yield q
    q.stop()


def shown(quota, certificate=PRINT_B, key=PRINT_B):
    quota.smtpd.send("ipc_client_certificate", tag=quota.next_tag(), client=b"\xc0\x00\x02\x01",
                     certificate=certificate, key=key)
    return quota.smtpd.expect("ipc_auth_result")


def test_certificate_is_its_user(quota):
    quota.account(plan="month")
    assert shown(quota, PRINT_A).status == NONE
    quota.ask("certificate.add", login="web", certificate=PRINT_A.replace(":", "").lower(),
              note="printer")
    for certificate, key in ((PRINT_A, PRINT_B), (PRINT_B, PRINT_A)):
        r = shown(quota, certificate, key)
        assert (r.status, r.account, r.user) == (OK, b"acme", b"web")
        assert (r.size_limit, r.recipient_limit) == (5000, 7)
    quota.sent(r.ticket)
    assert quota.usage()["delivered"] == 1
    assert quota.mail(r.ticket, sender="a@else.test").code == 553
    (listed,), _ = quota.ask("certificate.list", login="WEB")
    assert listed["fingerprint"] == PRINT_A and listed["account"] == "acme"
    assert listed["note"] == "printer" and listed["added"] > 0
    assert quota.one("user.show", login="web")["certificates"][0]["fingerprint"] == PRINT_A
    quota.ask("certificate.delete", certificate=PRINT_A)
    assert shown(quota, PRINT_A).status == NONE
    assert "certificates" not in quota.one("user.show", login="web")


def test_suspended_user_s_certificate(quota):
    quota.account()
    quota.ask("certificate.add", login="web", certificate=PRINT_A)
    ticket = shown(quota, PRINT_A).ticket
    for change, words in ((dict(request="user.set", login="web"), b"the user is suspended"),
                          (dict(request="account.set", account="acme"),
                           b"the account is suspended")):
        quota.ask(**change, status="suspended")
        r = shown(quota, PRINT_A)
        assert (r.status, r.user, r.reason) == (DENIED, b"web", words)
        assert quota.mail(ticket).code == 550
        quota.ask(**change, status="active")
        assert shown(quota, PRINT_A).status == OK


def test_what_cannot_be_a_certificate(quota):
    quota.account()
    quota.ask("user.add", login="other", account="acme", certificate=PRINT_B)
    for members, words in [
            ({"login": "web", "certificate": "AB:CD"}, "SHA-256 fingerprint"),
            ({"login": "web", "certificate": PRINT_A[:-1] + "g"}, "SHA-256 fingerprint"),
            ({"login": "web", "certificate": PRINT_A.replace(":", "-")}, "SHA-256 fingerprint"),
            ({"login": "web", "certificate": PRINT_B}, "is that of user other"),
            ({"login": "nobody", "certificate": PRINT_A}, "no user nobody")]:
        with pytest.raises(Refused, match=words):
            quota.ask("certificate.add", **members)
    with pytest.raises(Refused, match="no user with this certificate"):
        quota.ask("certificate.delete", certificate=PRINT_A)
    for n in range(20):
        quota.ask("certificate.add", login="web", certificate=f"{n:064x}")
    quota.ask("certificate.add", login="web", certificate=f"{0:064x}")
    with pytest.raises(Refused, match="at most 20 certificates"):
        quota.ask("certificate.add", login="web", certificate=PRINT_A)
    assert len(quota.ask("certificate.list", login="web")[0]) == 20
    assert len(quota.ask("certificate.list")[0]) == 21
    quota.ask("user.delete", login="web")
    assert shown(quota, f"{3:064x}", f"{4:064x}").status == NONE


def test_B89_certificate_s_frame_without_a_fingerprint(quota):
    quota.smtpd.send("ipc_client_certificate", tag=1, client=b"", certificate="x", key=PRINT_A)
    with pytest.raises(Closed):
        quota.smtpd.receive()


def test_certificates_in_export_and_import(quota):
    quota.account()
    quota.ask("certificate.add", login="web", certificate=PRINT_A, note="printer")
    records, _ = quota.ask("export")
    users = [r for r in records if r["type"] == "user"]
    assert users[0]["certificates"][0]["fingerprint"] == PRINT_A
    quota.ask("import", records=records)
    assert shown(quota, PRINT_A).status == OK
    users[0]["certificates"] = [PRINT_B]
    quota.ask("import", records=users)
    assert shown(quota, PRINT_A, PRINT_A).status == NONE and shown(quota).status == OK
    with pytest.raises(Refused, match="that of user web"):
        quota.ask("import", records=[{**users[0], "login": "other"}])
    fresh = {**users[0], "certificates": [PRINT_A]}
    with pytest.raises(Refused, match="another user's in this import"):
        quota.ask("import", records=[{**fresh, "login": "x"}, {**fresh, "login": "y"}])


# ---- a whole relay ---------------------------------------------------------------------------


@pytest.fixture(name="sink", scope="module")
def _sink():
    with Sink() as sink:
        yield sink


@pytest.fixture(name="made", scope="module")
def _made(tmp_path_factory):
    """A client's key and certificate, signed by nobody but itself."""
    return make(tmp_path_factory.mktemp("certificates"), "printer.test")


@pytest.fixture(name="shop", scope="module")
def _shop(tmp_path_factory, sink, made):
    with Shop(tmp_path_factory.mktemp("shop"), sink, smtpd_tls_ask_ccert="yes") as p:
        p.ctl("account", "add", "office", "--plan", "small")
        p.ctl("domain", "add", "office", "acme.test")
        p.ctl("user", "add", "printer", "office", "--certificate", made.certificate)
        yield p


def test_client_is_the_certificate_s_user(shop, sink, made):
    with starttls(shop.submission, context(made)) as c:
        assert c.esmtp_features["size"] == "20000" and "RCPTMAX=3" in c.esmtp_features["limits"]
        assert "EXTERNAL" in c.esmtp_features["auth"]
        c.sendmail("web@acme.test", ["by-certificate@dst.test"], MESSAGE)
        assert c.mail("web@else.test")[0] == 553
    shop.wait_log("sasl_method=EXTERNAL, sasl_username=printer")
    wait_until(lambda: shop.usage("office")["delivered"] == 1, 20, "the charge")
    assert shop.usage("office", "printer")["delivered"] == 1
    # another client of the same port is nobody
    with starttls(shop.submission, context()) as c:
        assert "EXTERNAL" not in c.esmtp_features["auth"] and c.esmtp_features["size"] != "20000"
        c.mail("web@acme.test")
        assert c.rcpt("b@dst.test")[0] == 554


def test_auth_goes_before_the_certificate(shop, made):
    with starttls(shop.submission, context(made)) as c:
        before = shop.usage("acme", "web@acme.test")["delivered"]
        c.login("web@acme.test", "secret")
        c.ehlo()
        assert "auth" not in c.esmtp_features and c.esmtp_features["size"] != "20000"
        c.sendmail("web@acme.test", ["b@dst.test"], MESSAGE)
    wait_until(lambda: shop.usage("acme", "web@acme.test")["delivered"] == before + 1, 20, "charge")
    with starttls(shop.submission, context(made)) as c: # a wrong password leaves what it was
        assert c.docmd("AUTH", "PLAIN " + base64.b64encode(b"\0web@acme.test\0x").decode())[0] == 535
        assert c.mail("web@acme.test")[0] == 250 and c.rcpt("b@dst.test")[0] == 250


def test_external(shop, made):
    for given, code in (("=", 235), (base64.b64encode(b"PRINTER").decode(), 235),
                        (base64.b64encode(b"web@acme.test").decode(), 535), ("x", 501)):
        with starttls(shop.submission, context(made)) as c:
            assert c.docmd("AUTH", "EXTERNAL " + given)[0] == code
            if code == 235:
                assert c.docmd("AUTH", "EXTERNAL =")[0] == 503
                c.ehlo()
                assert "auth" not in c.esmtp_features
            assert c.mail("web@acme.test")[0] == 250
    with starttls(shop.submission, context(made)) as c:
        assert c.docmd("AUTH", "EXTERNAL")[0] == 334 and c.docmd("")[0] == 235
    with starttls(shop.submission, context()) as c: # nobody's certificate: no such mechanism
        assert c.docmd("AUTH", "EXTERNAL =")[0] == 504


def test_suspended_user_is_told(shop, made):
    shop.ctl("user", "suspend", "printer")
    try:
        with starttls(shop.submission, context(made)) as c:
            code, text = c.mail("web@acme.test")
            assert (code, text) == (550, b"5.7.1 Error: the user is suspended")
            c.login("web@acme.test", "secret") # the password is another's
            assert c.mail("web@acme.test")[0] == 250
        shop.wait_log("its certificate is that of user printer, whose mail is not taken")
    finally:
        shop.ctl("user", "resume", "printer")
    with starttls(shop.submission, context(made)) as c:
        assert c.mail("web@acme.test")[0] == 250


def test_commands(shop, made, tmp_path):
    other = make(tmp_path, "other.test")
    shop.ctl("user", "add-certificate", "web@acme.test", other.certificate, "--public-key",
             "--note", "laptop")
    table = shop.ctl("user", "list-certificates")
    assert "laptop" in table and made.fingerprint() in table
    row, = [json.loads(r) for r in
            shop.ctl("user", "list-certificates", "web@acme.test", "--json").splitlines()]
    assert row["note"] == "laptop" and row["fingerprint"] != other.fingerprint()
    with starttls(shop.submission, context(other)) as c:
        assert "EXTERNAL" in c.esmtp_features["auth"]
    shop.ctl("user", "delete-certificate", row["fingerprint"])
    with starttls(shop.submission, context(other)) as c:
        assert "EXTERNAL" not in c.esmtp_features["auth"]
    for arguments, status, words in [
            (["add-certificate", "web@acme.test"], 2, "the certificate is missing"),
            (["add-certificate", "web@acme.test", "/nowhere.pem"], 2, "cannot read the certificate"),
            (["add-certificate", "web@acme.test", made.key], 2, "no certificate in PEM form"),
            (["add-certificate", "web@acme.test", made.certificate], 1, "that of user printer"),
            (["delete-certificate", "00"], 5, "no user with this certificate"),
            (["delete-certificate", "zz"], 2, "give a certificate's file or its SHA-256")]:
        done = shop.ctl("user", *arguments, check=False)
        assert done.returncode == status and words in done.stderr


def test_F16_certificate_s_user_while_quota_is_away(tmp_path, sink, made):
    with Shop(tmp_path / "r", sink, smtpd_tls_ask_ccert="yes", service_restart_delay="3s") as p:
        p.ctl("user", "add-certificate", "web@acme.test", made.certificate)
        for pid in p.pids("quota"):
            os.kill(pid, signal.SIGKILL)
        p.wait_log("quota is gone")
        with starttls(p.submission, context(made)) as c:
            assert c.mail("web@acme.test")[0] == 451
            wait_until(lambda: c.mail("web@acme.test")[0] == 250, 20, "quota's return")
            assert c.rcpt("after@dst.test")[0] == 250
