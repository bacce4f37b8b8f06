"""What doc/operators-guide.md and INSTALL tell operators to type, typed: its commands are taken
from the text."""
import json
import os
import re
import shutil
import smtplib
import subprocess

import pytest
from postern import BIN, ROOT, wait_until
from shop import MESSAGE, Shop, shop_relay, shop_sink  # noqa: F401
from test_auth import scram
from tls_rig import common_name, make, starttls

HOOK = os.path.join(ROOT, "etc/certbot-deploy-hook")


def commands(beginning):
    """The indented block of the guide that begins so."""
    with open(os.path.join(ROOT, "doc/operators-guide.md"), encoding="utf-8") as f:
        (found,) = re.findall(rf"^    {re.escape(beginning)}.*(?:\n    .*)*", f.read(), re.M)
    return re.sub("^    ", "", found, flags=re.M)


def typed(p, text, directory):
    """In a shell, with `postern` being that of the relay p."""
    tool = os.path.join(directory, "postern")
    with open(tool, "w", encoding="utf-8") as f:
        f.write(f'#!/bin/sh\nexec {BIN}/postern -c {p.directory} "$@"\n')
    os.chmod(tool, 0o755)
    done = subprocess.run(["bash", "-ec", "set -o pipefail\n" + text], cwd=directory, text=True,
                          capture_output=True, timeout=60, check=False,
                          env={**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"})
    assert done.returncode == 0, (text, done.stdout, done.stderr)
    return done.stdout


def crypted(password):
    return subprocess.run(["openssl", "passwd", "-6", password], capture_output=True, text=True,
                          timeout=60, check=True).stdout.strip()


def test_users_of_a_dovecot_passwd_file(shop, sink, tmp_path):
    users = tmp_path / "users"
    users.write_text("# Dovecot's\n"
                     f"old@acme.test:{{SHA512-CRYPT}}{crypted('hush')}:5000:5000::/home/old::\n"
                     f"plain@acme.test:{crypted('hush')}\n"
                     "locked@acme.test:!:5001:5001::/home/locked::\n", encoding="utf-8")
    said = typed(shop, commands("jq -Rc").replace("/etc/dovecot/users", str(users)), str(tmp_path))
    assert "2 records imported" in said
    listed = [json.loads(l) for l in shop.ctl("user", "list", "acme", "--json").splitlines()]
    assert {u["login"] for u in listed} == {"web@acme.test", "old@acme.test", "plain@acme.test"}
    for login in ("old@acme.test", "plain@acme.test"):
        with shop.login(login, "hush") as c:
            c.sendmail("web@acme.test", [login.replace("acme", "dst")], MESSAGE)
        wait_until(lambda r=login: [m for m in sink.messages
                                    if m.recipients == [r.replace("acme", "dst")]])
        with shop.connect() as c:  # from its first login on
            assert scram(c, login, "hush") == 235
    shop.wait_log("user old@acme.test: SCRAM keys were made at a login")
    with shop.connect() as c, pytest.raises(smtplib.SMTPAuthenticationError):
        c.login("old@acme.test", "wrong")


def test_users_of_a_dovecot_passwd_file_whose_programs_know_scram(sink, tmp_path):
    """The setting that the guide names keeps them from being refused."""
    (setting,) = re.findall(r"postconf -e '(smtpd_sasl_mechanism_filter = .*)'",
                            commands("postconf -e 'smtpd_sasl_mechanism_filter"))
    name, value = setting.split(" = ")
    with Shop(tmp_path / "new", sink, **{name: value}) as p, p.connect() as c:
        assert c.esmtp_features["auth"].split() == ["PLAIN", "LOGIN"]


def test_users_of_a_list(shop, tmp_path):
    (tmp_path / "users.csv").write_text("one@acme.test,acme,pass word\ntwo@acme.test,acme,x\\y$z\n",
                                        encoding="utf-8")
    typed(shop, commands("while IFS=, read"), str(tmp_path))
    for login, password in (("one@acme.test", "pass word"), ("two@acme.test", r"x\y$z")):
        with shop.login(login, password) as c:
            assert c.noop()[0] == 250


def test_accounts_on_another_machine(shop, sink, tmp_path):
    """With what was used, so that nobody gets a second allowance."""
    shop.ctl("account", "add", "mover", "--plan", "small", "--reference", "m@mover.test")
    shop.user("m@mover.test", "secret", "mover")
    shop.ctl("domain", "add", "mover", "mover.test")
    with shop.login("m@mover.test") as c:
        for _ in range(3):
            c.sendmail("m@mover.test", ["b@dst.test"], b"From: m@mover.test\r\n\r\nx\r\n")
    wait_until(lambda: shop.usage("mover")["delivered"] == 3, what="the charges")
    exported = typed(shop, "(umask 077; postern account export > accounts.jsonl)\n"
                     "stat -c %a accounts.jsonl", str(tmp_path))
    assert exported == "600\n"
    with Shop(tmp_path / "new", sink) as p:
        assert "records imported" in typed(p, "postern account import accounts.jsonl", str(tmp_path))
        assert p.usage("mover") == shop.usage("mover") and p.usage("mover")["percent"] == 15
        assert sorted(p.ctl("usage", "list", "--json").splitlines()) == \
            sorted(shop.ctl("usage", "list", "--json").splitlines())
        with p.login("m@mover.test") as c:
            c.sendmail("m@mover.test", ["b@dst.test"], b"From: m@mover.test\r\n\r\nx\r\n")
        wait_until(lambda: p.usage("mover")["delivered"] == 4, what="the charge")


def lineage(directory, made):
    """As certbot keeps a certificate."""
    os.makedirs(directory, exist_ok=True)
    shutil.copy(made.key, os.path.join(directory, "privkey.pem"))
    shutil.copy(made.certificate, os.path.join(directory, "fullchain.pem"))
    return directory


def hook(directory, certificates, **more):
    return subprocess.run([HOOK], capture_output=True, text=True, timeout=60, check=False,
                          env={**os.environ, "RENEWED_LINEAGE": directory,
                               "POSTERN_CERTIFICATES": str(certificates), **more})


def test_certbot_s_hook(shop, tmp_path):
    """A renewed certificate is used without a reload; one that does not fit is not written."""
    live, etc = str(tmp_path / "live/relay.example"), tmp_path / "etc"
    etc.mkdir()
    first, second = (make(tmp_path, f"{n}.example") for n in ("first", "second"))
    done = hook(lineage(live, first), etc)
    assert done.returncode == 0, done.stderr
    file = etc / "relay.example.pem"
    assert os.stat(file).st_mode & 0o777 == 0o600
    os.chmod(tmp_path, 0o755)
    shop.write_config(smtpd_tls_chain_files=str(file))
    shop.ctl("reload")

    def shown():
        with starttls(shop.submission) as c:
            return common_name(c.sock)
    wait_until(lambda: shown() == "first.example", 20, "the first certificate")
    assert hook(lineage(live, second), etc).returncode == 0
    wait_until(lambda: shown() == "second.example", 20, "the renewed certificate")
    shutil.copy(first.key, os.path.join(live, "privkey.pem"))
    done = hook(live, etc)
    assert done.returncode == 1 and "is not that of the certificate" in done.stderr
    assert os.listdir(etc) == ["relay.example.pem"] and shown() == "second.example"
