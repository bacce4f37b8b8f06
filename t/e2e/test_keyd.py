"""keyd alone: what it signs, and what it never does."""
import os
import subprocess

import pytest

from ipc import Closed, FakeMaster
from tls_rig import make

TLS13 = b" " * 64 + b"TLS 1.3, server CertificateVerify\0" + b"h" * 48
TLS12 = b"r" * 64 + b"\x03\x00\x17\x41" + b"\x04" * 65
ECDSA_SHA256, ECDSA_SHA384, PSS_SHA256, PKCS1_SHA256 = 0x0403, 0x0503, 0x0804, 0x0401
TLS, DKIM = 1, 2


class Keyd:
    def __init__(self, made, **config):
        wrapper = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups") \
            if os.geteuid() == 0 else ()
        self.master = FakeMaster("keyd", config, wrapper=wrapper)
        self.tag = 0
        self.give(1, made.ec.key)
        self.give(2, made.rsa.key)
        self.give(3, made.ec.key, DKIM)
        self.smtpd = self.master.peer("smtpd")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.master.stop(None if kind else 0)

    def give(self, number, path, purpose=TLS, content=None):
        fd = os.memfd_create("key")
        os.write(fd, content or open(path, "rb").read())
        self.master.master.send("ipc_key", fd, number=number, purpose=purpose)
        os.close(fd)
        taken = self.master.master.expect("ipc_key_taken")
        assert taken.number == number
        return taken.error

    def sign(self, key=1, scheme=ECDSA_SHA256, content=TLS13):
        self.tag += 1
        self.smtpd.send("ipc_sign_request", tag=self.tag, key=key, scheme=scheme, content=content)
        answer = self.smtpd.expect("ipc_signature")
        assert answer.tag == self.tag
        return answer.signature


@pytest.fixture(name="made", scope="module")
def _made(tmp_path_factory):
    directory = tmp_path_factory.mktemp("keys")

    class Both:
        ec = make(directory, "ec.test")
        rsa = make(directory, "rsa.test", "rsa:2048")
        path = directory
    return Both


@pytest.fixture(name="keyd")
def _keyd(made):
    with Keyd(made) as k:
        yield k


def verifies(made, signature, content, *options, digest="-sha256"):
    files = {}
    for name, data in (("content", content), ("signature", signature)):
        files[name] = str(made.path / name)
        with open(files[name], "wb") as f:
            f.write(data)
    public = str(made.path / "public")
    with open(public, "wb") as f:
        f.write(subprocess.run(["openssl", "x509", "-noout", "-pubkey", "-in", options[0]],
                               check=True, capture_output=True).stdout)
    return subprocess.run(["openssl", "dgst", digest, "-verify", public, *options[1:], "-signature",
                           files["signature"], files["content"]], capture_output=True,
                          check=False).returncode == 0


def test_it_signs_what_a_tls_server_signs(keyd, made):
    ec, rsa = made.ec.certificate, made.rsa.certificate
    pss = ("-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest")
    assert verifies(made, keyd.sign(), TLS13, ec)
    assert verifies(made, keyd.sign(content=TLS12), TLS12, ec)
    assert verifies(made, keyd.sign(scheme=ECDSA_SHA384), TLS13, ec, digest="-sha384")
    assert verifies(made, keyd.sign(2, PSS_SHA256), TLS13, rsa, *pss)
    assert verifies(made, keyd.sign(2, PKCS1_SHA256, TLS12), TLS12, rsa)


def test_it_signs_nothing_else(keyd):
    rows = [
        dict(key=9), dict(key=0), dict(key=3),  # not there; a key for something else
        dict(key=1, scheme=PSS_SHA256), dict(key=2), dict(scheme=0x0203), dict(scheme=0),
        dict(key=2, scheme=PKCS1_SHA256),  # TLS 1.3 has none such
        dict(content=b""), dict(content=b"h" * 32), dict(content=TLS13 + b"x"),
        dict(content=TLS13[:-1]), dict(content=TLS13.replace(b"server", b"client")),
        dict(content=TLS12[:-1]), dict(content=TLS12.replace(b"\x03\x00\x17", b"\x01\x00\x17")),
        dict(content=b"r" * 64 + b"\x03\x00\x17\x20" + b"\x04" * 32),
        dict(content=b"From: a@src.test\r\n" * 8), dict(content=b"\x30\x82" + b"c" * 5000),
    ]
    for row in rows:
        assert keyd.sign(**row) == b"", row
    keyd.master.wait_log("no signature for smtpd .*there is no key 9")
    keyd.master.wait_log("no signature for smtpd .*are no part of a TLS server's handshake")
    assert keyd.sign() != b""
    assert "PRIVATE" not in keyd.master.log()


def test_a_process_that_asks_too_much_is_refused_for_a_while(made):
    with Keyd(made, keyd_signature_rate_limit="5") as keyd:
        answers = [keyd.sign() != b"" for _ in range(30)]
        assert answers.count(True) >= 5 and answers.count(False) > 0
        keyd.master.wait_log("more than keyd_signature_rate_limit")
        # the limit is each process's own, and is one of a second
        other = keyd.master.peer("smtpd", slot=1)
        other.send("ipc_sign_request", tag=1, key=1, scheme=ECDSA_SHA256, content=TLS13)
        assert other.expect("ipc_signature").signature


def test_keys_come_and_go(keyd, made):
    assert keyd.give(7, made.rsa.key) == b""
    assert keyd.sign(7, PSS_SHA256)
    keyd.master.master.send("ipc_key_forget", number=7)
    assert keyd.give(8, None, content=b"no key") != b""
    assert keyd.give(8, None, content=b"x" * 100000) != b""
    assert keyd.give(8, made.ec.key, purpose=7) != b""
    assert keyd.sign(7, PSS_SHA256) == b""
    assert keyd.sign()


def test_B89_a_peer_that_breaks_the_rules(keyd):
    keyd.smtpd.send("ipc_signature", tag=1, signature=b"x")
    with pytest.raises(Closed):
        keyd.smtpd.expect("ipc_signature")
    keyd.smtpd = keyd.master.peer("smtpd", slot=1)
    assert keyd.sign()
    qmgr = keyd.master.peer("qmgr")  # only smtpd has a use for it
    with pytest.raises(Closed):
        qmgr.expect("ipc_signature")
