"""testssl.sh, which knows the weaknesses of TLS servers, finds none where TLS is
required: by STARTTLS, and from the first byte."""
import json
import subprocess

import pytest

from postern import Postern, free_port
from tls_rig import make

# what it says of itself and of the machine it runs on
OWN = ("engine_problem", "service", "RC4", "scanTime", "scanProblem", "old_fart")


@pytest.mark.parametrize("immediate, kind", [(False, "ec"), (True, "ec"), (True, "rsa")])
def test_testssl_finds_no_weakness(tmp_path, immediate, kind):
    made, port, report = make(tmp_path, "localhost", kind), free_port(), tmp_path / "report.json"
    p = Postern(tmp_path / "r", start=False,
                **{**made.config, "smtpd_tls_security_level": "encrypt"})
    p.master_cf += f"127.0.0.1:{port} inet n - y - 1 smtpd -o smtpd_tls_wrappermode=yes\n"
    p.write_config()
    p.start()
    where = [f"127.0.0.1:{port}"] if immediate else ["--starttls", "smtp", f"127.0.0.1:{p.port}"]
    with p:
        done = subprocess.run(
            ["testssl", "--quiet", "--color", "0", "--warnings", "off", "--fast", "--sneaky",
             "--protocols", "--std", "--pfs", "--vulnerable", "--severity", "LOW",
             "--jsonfile", str(report), *where],
            capture_output=True, text=True, timeout=250, check=False)
        findings = json.loads(report.read_text(encoding="utf-8"))
        assert "offered (OK)" in done.stdout and "TLS 1.3" in done.stdout, done.stdout
        bad = [f for f in findings if f["id"] not in OWN]
        assert not bad, bad
