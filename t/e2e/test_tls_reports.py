"""Reports about TLS (RFC 8460) from end to end: what is counted and how it reads, by mail
and by HTTPS; and which of DANE and MTA-STS holds where a domain has both."""
import base64
import email
import gzip
import http.server
import json
import os
import tempfile
import threading

import pytest

from certs import Authority
from dnsserver import DnsServer
from policyhost import PolicyHost
from postern import wait_until
from signedzone import SignedZones
from test_tls_out import MAIL, attempt, relay, tls_sink

ONCE = "1h"  # a period that does not end in a test, unless a new configuration ends it


@pytest.fixture(scope="module")
def ca():
    with tempfile.TemporaryDirectory(prefix="postern-") as place:
        authority = Authority(place)
        authority.good = authority.server("mx.test", "mta-sts.a.test", "mta-sts.b.test",
                                          "tls.reports.test")
        authority.bad = authority.server("other.example")
        yield authority


def report_of(p, sink, domain):
    """Ends the period by a restart with a short one; the report that is mailed then."""
    p.stop()
    p.write_config(smtp_tlsrpt_period="2s", smtp_tcp_port=str(sink.port),
                   smtp_tls_security_level="may", minimal_backoff_time="1h")
    p.start()

    def found():
        return [m for m in sink.messages if m.recipients == [f"tls@{domain}"]]
    wait_until(found, 40, f"the report for {domain}")
    text, packed = email.message_from_bytes(found()[0].content).get_payload()
    assert packed.get_content_type() == "application/tlsrpt+gzip" and text
    return json.loads(gzip.decompress(base64.b64decode(packed.get_payload())))


def by_type(report):
    return {p["policy"]["policy-type"]: p for p in report["policies"]}


# ---- DANE -----------------------------------------------------------------------------------


def signed(sink, ca, place, names, **config):
    """A relay and a signed zone with hosts whose TLSA records are as in `names`."""
    zone = "ns A 127.0.0.1\nout MX 10 mx.out\nmx.out A 127.0.0.1\n"
    for name, records in names.items():
        zone += f"{name} MX 10 mx.{name}\nmx.{name} A 127.0.0.1\n"
        zone += f'_smtp._tls.{name} TXT "v=TLSRPTv1; rua=mailto:tls@out.test"\n'
        for record in records:
            zone += f"_{sink.port}._tcp.mx.{name} TLSA {record}\n"
    zones = SignedZones({"test": zone}, signed=["test"])
    os.chmod(os.path.dirname(zones.anchor), 0o755)
    config.setdefault("smtp_tls_security_level", "dane")
    return zones, relay(place, zones, sink, ca, resolver_trust_anchor=zones.anchor,
                        smtp_tlsrpt_enable="yes", smtp_tlsrpt_period=ONCE, **config)


def reported(place, sink, ca, name, records, event, **config):
    """The tlsa or other policies in the report after one message to that domain."""
    zones, p = signed(sink, ca, place, {name: records}, **config)
    with zones, p:
        seen = attempt(p, p.send("s@src.test", [f"r@{name}.test"], MAIL))
        assert seen["event"] == event, seen
        report = report_of(p, sink, "out.test")
    return by_type(report)


def test_B72_dane_mismatch_in_the_report(place, ca):
    with tls_sink(ca.good) as sink:
        records = [ca.bad.tlsa(3, 1, 1), ca.bad.tlsa(2, 0, 1)]
        policies = reported(place, sink, ca, "a", records, "deferred")
        policy = policies["tlsa"]
        assert policy["policy"]["policy-domain"] == "a.test"
        assert policy["policy"]["mx-host"] == ["mx.a.test"]
        assert sorted(policy["policy"]["policy-string"]) == sorted(
            f"_{sink.port}._tcp.mx.a.test. IN TLSA {r.upper()}" for r in records)
        assert policy["summary"]["total-failure-session-count"] >= 1
        assert policy["summary"]["total-successful-session-count"] == 0
        detail = policy["failure-details"][0]
        assert detail["receiving-mx-hostname"] == "mx.a.test"
        assert detail["receiving-ip"] == detail["sending-mta-ip"] == "127.0.0.1"
        assert detail["result-type"] in ("certificate-not-trusted", "validation-failure")


def test_dane_success_in_the_report(place, ca):
    with tls_sink(ca.good) as sink:
        policy = reported(place, sink, ca, "a", [ca.good.tlsa(3, 1, 1)], "delivered")["tlsa"]
        assert policy["summary"] == {"total-successful-session-count": 1,
                                     "total-failure-session-count": 0}
        assert "failure-details" not in policy


@pytest.mark.parametrize("level, event", [("dane", "delivered"), ("dane-only", "deferred")])
def test_tlsa_records_that_cannot_be_used(place, ca, level, event):
    with tls_sink(ca.good) as sink:
        policy = reported(place, sink, ca, "a", [ca.good.tlsa(1, 1, 1)], event,
                          smtp_tls_security_level=level)["tlsa"]
        detail, = policy["failure-details"]
        assert detail["result-type"] == "tlsa-invalid"
        assert detail["receiving-mx-hostname"] == "mx.a.test"
        assert detail["failure-reason-code"] == "none of its TLSA records can be used"


def test_dane_required_in_the_report(place, ca):
    with tls_sink(ca.good) as sink:
        policy = reported(place, sink, ca, "a", [], "deferred",
                          smtp_tls_security_level="dane-only")["no-policy-found"]
        detail, = policy["failure-details"]
        assert detail["result-type"] == "dane-required" and "dane-only" in \
            detail["failure-reason-code"]


def test_dnssec_invalid_in_the_report(place, ca):
    """The zone of the TLSA records does not fit its DS record: nobody can tell what they
    are, the host is not used, and its domain is told."""
    with tls_sink(ca.good) as sink:
        zone = "ns A 127.0.0.1\nout MX 10 mx.out\nmx.out A 127.0.0.1\n" \
            "a MX 10 mx.a\nmx.a A 127.0.0.1\n" \
            '_smtp._tls.a TXT "v=TLSRPTv1; rua=mailto:tls@out.test"\n' \
            f"_tcp.mx.a NS ns\n_tcp.mx.a DS 12345 13 2 {'0' * 64}\n"
        below = f"_{sink.port} TLSA {ca.good.tlsa(3, 1, 1)}\n"
        with SignedZones({"test": zone, "_tcp.mx.a.test": below}, signed=["test"]) as zones:
            os.chmod(os.path.dirname(zones.anchor), 0o755)
            with relay(place, zones, sink, ca, resolver_trust_anchor=zones.anchor,
                       smtp_tls_security_level="dane", smtp_tlsrpt_enable="yes",
                       smtp_tlsrpt_period=ONCE) as p:
                event = attempt(p, p.send("s@src.test", ["r@a.test"], MAIL))
                assert event["event"] == "deferred"
                policy = by_type(report_of(p, sink, "out.test"))["tlsa"]
        detail, = policy["failure-details"]
        assert detail["result-type"] == "dnssec-invalid"
        assert detail["receiving-mx-hostname"] == "mx.a.test"


# ---- MTA-STS --------------------------------------------------------------------------------


@pytest.fixture(name="dns")
def _dns():
    server = DnsServer()
    for name in ("a", "reports"):
        server.add(f"{name}.test", "MX", "10 mx.test")
    server.add("mx.test", "A", "127.0.0.1")
    server.add("tls.reports.test", "A", "127.0.0.1")
    server.add("_mta-sts.a.test", "TXT", '"v=STSv1; id=1;"')
    server.add("mta-sts.a.test", "A", "127.0.0.1")
    server.add("_smtp._tls.a.test", "TXT", '"v=TLSRPTv1; rua=mailto:tls@reports.test"')
    yield server
    server.stop()


@pytest.mark.parametrize("answer, certificate, result", [
    (dict(status=404), "good", "sts-policy-fetch-error"),
    (dict(body=b"version: STSv1\nmode: maybe\n"), "good", "sts-policy-invalid"),
    (dict(headers={"Content-Type": "text/html"}, body=b"x"), "good", "sts-policy-invalid"),
    (dict(body=b""), "bad", "sts-webpki-invalid")])
def test_policies_that_cannot_be_had(place, dns, ca, answer, certificate, result):
    with PolicyHost(getattr(ca, certificate)) as host, tls_sink(ca.good) as sink, \
            relay(place, dns, sink, ca, smtp_tls_mta_sts_port=str(host.port),
                  smtp_tlsrpt_enable="yes", smtp_tlsrpt_period=ONCE) as p:
        host.answer("a.test", **answer)
        assert attempt(p, p.send("s@src.test", ["r@a.test"], MAIL))["event"] == "delivered"
        policies = by_type(report_of(p, sink, "reports.test"))
    detail, = policies["sts"]["failure-details"]
    assert (detail["result-type"], detail["failed-session-count"]) == (result, 1)
    assert detail["failure-reason-code"] and "receiving-ip" not in detail
    # the mail itself went without a policy
    assert policies["no-policy-found"]["summary"]["total-successful-session-count"] == 1


def test_a_host_that_the_policy_does_not_name(place, dns, ca):
    with PolicyHost(ca.good) as host, tls_sink(ca.good) as sink, \
            relay(place, dns, sink, ca, smtp_tls_mta_sts_port=str(host.port),
                  smtp_tlsrpt_enable="yes", smtp_tlsrpt_period=ONCE) as p:
        host.policy("a.test", mx=("elsewhere.test",))
        assert attempt(p, p.send("s@src.test", ["r@a.test"], MAIL))["event"] == "deferred"
        policy = by_type(report_of(p, sink, "reports.test"))["sts"]
    assert policy["policy"]["mx-host"] == ["elsewhere.test"]
    assert policy["policy"]["policy-string"] == [
        "version: STSv1", "mode: enforce", "mx: elsewhere.test", "max_age: 86400"]
    detail = policy["failure-details"][0]
    assert (detail["result-type"], detail["receiving-mx-hostname"], detail["receiving-ip"]) == \
        ("validation-failure", "mx.test", "127.0.0.1")
    assert "does not name it" in detail["failure-reason-code"]


# ---- by HTTPS -------------------------------------------------------------------------------


class ReportHost:
    """A web server that reports are posted to; the first `failures` of them get 503."""

    def __init__(self, certificate, failures=0):
        self.posted = []
        owner = self
        owner.failures = failures

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = 503 if owner.failures else 201
                owner.failures -= 1 if owner.failures else 0
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()
                owner.posted.append((status, self.path, self.headers["Content-Type"], body))

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None
        self.server.socket = certificate.context().wrap_socket(
            self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def test_reports_are_posted(place, dns, ca):
    """To a mailbox and to a URL; a server that is busy is asked again."""
    with ReportHost(ca.good, failures=1) as host, tls_sink(ca.good) as sink:
        dns.remove("_mta-sts.a.test")
        dns.remove("_smtp._tls.a.test")
        dns.add("_smtp._tls.a.test", "TXT",
                '"v=TLSRPTv1; rua=mailto:tls@reports.test,'
                f'https://tls.reports.test:{host.port}/in?box=1"')
        with relay(place, dns, sink, ca, smtp_tlsrpt_enable="yes",
                   smtp_tlsrpt_period=ONCE) as p:
            attempt(p, p.send("s@src.test", ["r@a.test"], MAIL))
            mailed = report_of(p, sink, "reports.test")
            p.wait_log(r"TLSRPT: the report for a\.test cannot be posted to https://tls\.reports"
                       r"\.test:\d+/in\?box=1: the server answers with status 503", 40)
            p.wait_log(r"TLSRPT: the report for a\.test was posted to https://", 40)
    (_, path, kind, body), again = host.posted[0], host.posted[1]
    assert (path, kind, again[0]) == ("/in?box=1", "application/tlsrpt+gzip", 201)
    report = json.loads(gzip.decompress(body))
    assert report["policies"] == mailed["policies"] and body == again[3]


def test_reports_are_not_posted_to_a_server_that_is_another(place, dns, ca):
    with ReportHost(ca.bad) as host, tls_sink(ca.good) as sink:
        dns.remove("_mta-sts.a.test")
        dns.remove("_smtp._tls.a.test")
        dns.add("_smtp._tls.a.test", "TXT",
                f'"v=TLSRPTv1; rua=https://tls.reports.test:{host.port}/"')
        with relay(place, dns, sink, ca, smtp_tlsrpt_enable="yes",
                   smtp_tlsrpt_period="4s") as p:
            attempt(p, p.send("s@src.test", ["r@a.test"], MAIL))
            p.wait_log(r"TLSRPT: the report for a\.test cannot be posted to .*SSL", 40)
        assert not host.posted


# ---- DANE before MTA-STS --------------------------------------------------------------------


def test_mta_sts_never_overrides_dane(place, ca):
    """RFC 8461 section 2: with TLSA records it does not matter that the policy names other
    hosts, nor that the certificate would do for the policy."""
    with tls_sink(ca.good) as sink, PolicyHost(ca.good) as host:
        zone = "ns A 127.0.0.1\n"
        for name, certificate in (("a", ca.good), ("b", ca.bad)):
            zone += f"{name} MX 10 mx{name}\nmx{name} A 127.0.0.1\n" \
                f'_mta-sts.{name} TXT "v=STSv1; id=1;"\nmta-sts.{name} A 127.0.0.1\n' \
                f"_{sink.port}._tcp.mx{name} TLSA {certificate.tlsa(3, 1, 1)}\n"
        host.policy("a.test", mx=("elsewhere.test",))
        host.policy("b.test", mx=("mxb.test",))
        with SignedZones({"test": zone}, signed=["test"]) as zones:
            os.chmod(os.path.dirname(zones.anchor), 0o755)
            with relay(place, zones, sink, ca, resolver_trust_anchor=zones.anchor,
                       smtp_tls_security_level="dane",
                       smtp_tls_mta_sts_port=str(host.port)) as p:
                event = attempt(p, p.send("s@src.test", ["r@a.test"], MAIL))
                assert (event["event"], event["tls_peer"]) == ("delivered", "verified"), event
                event = attempt(p, p.send("s@src.test", ["r@b.test"], MAIL))
                assert event["event"] == "deferred" and "(DANE)" in event["text"], event
        assert host.asked  # the policies were there
        assert len(sink.messages) == 1


def test_mta_sts_holds_where_dane_says_nothing(place, ca):
    """TLSA records that cannot be used are no reason to take any certificate from a host
    whose domain enforces a policy, nor to go to a host that the policy does not name. Without
    one that is enforced they ask for TLS alone (RFC 7672 section 2.2)."""
    names = {"wrong": ("enforce", "mx.wrong.test"), "other": ("enforce", "elsewhere.test"),
             "testing": ("testing", "mx.testing.test"), "right": ("enforce", "mx.right.test")}
    hosts = ca.server(*(f"mta-sts.{name}.test" for name in names))
    right = ca.server("mx.right.test")
    with tls_sink(right) as sink, PolicyHost(hosts) as host:
        zone = "ns A 127.0.0.1\n"
        for name, (mode, mx) in names.items():
            host.policy(f"{name}.test", mode=mode, mx=(mx,))
            zone += f"{name} MX 10 mx.{name}\nmx.{name} A 127.0.0.1\n" \
                f'_mta-sts.{name} TXT "v=STSv1; id=1;"\nmta-sts.{name} A 127.0.0.1\n' \
                f"_{sink.port}._tcp.mx.{name} TLSA {right.tlsa(1, 1, 1)}\n"
        with SignedZones({"test": zone}, signed=["test"]) as zones:
            os.chmod(os.path.dirname(zones.anchor), 0o755)
            with relay(place, zones, sink, ca, resolver_trust_anchor=zones.anchor,
                       smtp_tls_security_level="dane",
                       smtp_tls_mta_sts_port=str(host.port)) as p:
                seen = {name: attempt(p, p.send("s@src.test", [f"r@{name}.test"], MAIL))
                        for name in names}
                for name, why in (("wrong", "(MTA-STS)"), ("other", "policy does not name it")):
                    assert seen[name]["event"] == "deferred" and why in seen[name]["text"], seen
                for name, peer in (("right", "verified"), ("testing", "trusted")):
                    assert (seen[name]["event"], seen[name]["tls_peer"]) == ("delivered", peer)
        assert len(sink.messages) == 2
