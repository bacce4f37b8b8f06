"""A DNS server with DNSSEC on loopback: Knot DNS, which signs the zones it is given.

    with SignedZones({"test": TEXT_OF_ZONE, "plain.test": TEXT}, signed=["test"]) as zones:
        ... resolver_nameservers=zones.address, resolver_trust_anchor=zones.anchor ...

It knows its zones and nothing else. SOA and NS records are added to each.
"""
import os
import shutil
import subprocess
import tempfile

import dns.dnssec
import dns.message
import dns.name
import dns.query
import dns.rdatatype

from postern import free_port, wait_until

KNOTD = shutil.which("knotd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
HEAD = """$ORIGIN {zone}.
$TTL 300
@ SOA ns.test. root.test. 1 3600 600 86400 300
@ NS ns.test.
"""


class SignedZones:
    def __init__(self, zones, signed):
        self.place = tempfile.TemporaryDirectory(prefix="postern-", ignore_cleanup_errors=True)
        self.port = free_port()
        self.address = f"127.0.0.1@{self.port}"
        self.anchor = os.path.join(self.place.name, "anchor")
        lines = [f"server:\n  rundir: {self.place.name}\n  listen: 127.0.0.1@{self.port}\n",
                 f"database:\n  storage: {self.place.name}\n",
                 "log:\n  - target: stderr\n    any: error\n",
                 "policy:\n  - id: p\n    algorithm: ecdsap256sha256\n    single-type-signing: on\n",
                 "zone:\n"]
        for name, text in zones.items():
            path = os.path.join(self.place.name, name + ".zone")
            with open(path, "w", encoding="ascii") as f:
                f.write(HEAD.format(zone=name) + text)
            lines.append(f"  - domain: {name}\n    file: {path}\n    zonefile-sync: -1\n"
                         "    zonefile-load: difference\n    journal-content: all\n"
                         if name in signed else
                         f"  - domain: {name}\n    file: {path}\n")
            if name in signed:
                lines.append("    dnssec-signing: on\n    dnssec-policy: p\n")
        config = os.path.join(self.place.name, "knot.conf")
        with open(config, "w", encoding="ascii") as f:
            f.writelines(lines)
        self.process = subprocess.Popen([KNOTD, "-c", config], stdin=subprocess.DEVNULL)
        wait_until(lambda: self._anchor(signed[0]), 30, "a signed zone")

    def _anchor(self, zone):
        assert self.process.poll() is None, "knotd has ended"
        question = dns.message.make_query(zone + ".", "DNSKEY")
        try:
            answer = dns.query.tcp(question, "127.0.0.1", timeout=2, port=self.port)
        except (OSError, EOFError, dns.exception.Timeout):
            return False
        keys = [r for s in answer.answer if s.rdtype == dns.rdatatype.DNSKEY for r in s]
        if not keys:
            return False
        with open(self.anchor, "w", encoding="ascii") as f:
            for key in keys:
                ds = dns.dnssec.make_ds(dns.name.from_text(zone + "."), key, "SHA256")
                f.write(f"{zone}. IN DS {ds.to_text()}\n")
        return True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)
        self.place.cleanup()
