"""testssl.sh, which knows the weaknesses of TLS servers, finds none where TLS is
required: by STARTTLS and from the first byte, with certificates of ECDSA and of RSA. The
server has both for its name, and one of RSA for another (SNI)."""
import json
import subprocess

import pytest

from patience import stretched
from postern import Postern, free_port
from tls_rig import make

# what it says of itself and of the machine it runs on
OWN = ("engine_problem", "service", "RC4", "scanTime", "scanProblem", "old_fart")
# no weakness, whatever it finds
FEATURES = ("sessionresumption_ticket", "sessionresumption_ID")
# what a test's certificate cannot have: an authority that revokes, a domain with CAA records
OURS = ("cert_revocation", "DNS_CAArecord")
BAD = ("LOW", "MEDIUM", "HIGH", "CRITICAL", "FATAL", "WARN", "NOT ok")


@pytest.fixture(name="relay", scope="module")
def _relay(tmp_path_factory):
    place = tmp_path_factory.mktemp("testssl")
    authority = make(place, "authority.test", days="1000")
    chains = [make(place, "localhost", kind, by=authority, days="390").file
              for kind in ("ec", "rsa")]
    other = make(place, "other.test", "rsa", by=authority, days="390")
    (place / "sni").write_text(f"other.test {other.file}\n", encoding="ascii")
    p = Postern(place / "r", start=False, smtpd_tls_security_level="encrypt",
                smtpd_tls_chain_files=", ".join(chains),
                tls_server_sni_maps=f"texthash:{place}/sni")
    p.tls_port, p.authority = free_port(), authority
    p.master_cf += f"127.0.0.1:{p.tls_port} inet n - y - 1 smtpd -o smtpd_tls_wrappermode=yes\n"
    p.write_config()
    p.start()
    with p:
        yield p


# on a busy machine its own connections come to nothing now and then: it has not looked then
NOT_LOOKED = "check failed because of connect problem"
TRIES = 3


def findings_of(relay, name, immediate, report):
    """By check; each of the try in which it has looked."""
    where = [f"{name}:{relay.tls_port}"] if immediate else \
        ["--starttls", "smtp", f"{name}:{relay.port}"]
    found = {}
    for _ in range(TRIES):
        report.unlink(missing_ok=True)
        done = subprocess.run(
            ["testssl", "--quiet", "--color", "0", "--warnings", "off", "--fast", "--sneaky",
             "--protocols", "--std", "--pfs", "--server-defaults", "--vulnerable", "--ip", "127.0.0.1",
             "--add-ca", relay.authority.certificate, "--jsonfile", str(report), *where],
            capture_output=True, text=True, timeout=stretched(290), check=False)
        for f in json.loads(report.read_text(encoding="utf-8")):
            if f["id"].split()[0] in (*OWN, *FEATURES, *OURS):
                continue
            if f["id"] not in found or found[f["id"]]["finding"].startswith(NOT_LOOKED):
                found[f["id"]] = f
        if not any(f["finding"].startswith(NOT_LOOKED) for f in found.values()):
            break
    return list(found.values()), done.stdout


@pytest.mark.parametrize("immediate", [False, True], ids=["starttls", "tls"])
@pytest.mark.parametrize("name, keys", [("localhost", {"EC 256", "RSA 2048"}),
                                        ("other.test", {"RSA 2048"})])
def test_testssl_finds_no_weakness(relay, tmp_path, name, keys, immediate):
    findings, output = findings_of(relay, name, immediate, tmp_path / "report.json")
    by_name = {f["id"]: f["finding"] for f in findings}
    assert by_name["TLS1_3"].startswith("offered") and by_name["TLS1_1"] == "not offered", output
    # it has seen the certificates that it is to judge, and trusts them
    assert {f["finding"].split(" bits")[0] for f in findings
            if f["id"].startswith("cert_keySize")} == keys, output
    assert all(f["finding"] == "passed." for f in findings
               if f["id"].startswith("cert_chain_of_trust"))
    bad = [f for f in findings if f["severity"] in BAD]
    assert not bad, bad
