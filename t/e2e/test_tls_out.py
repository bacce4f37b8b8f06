"""The whole relay over TLS to real servers: DNS, policies, certificates, reports."""
import base64
import email
import gzip
import json
import os
import tempfile

import pytest
from aiosmtpd.smtp import SMTP

from certs import Authority
from dnsserver import DnsServer
from policyhost import PolicyHost
from postern import Postern, wait_until
from signedzone import SignedZones
from sink import Sink

MAIL = b"Subject: x\r\n\r\nhello\r\n"


@pytest.fixture(scope="module")
def ca():
    with tempfile.TemporaryDirectory(prefix="postern-") as place:
        authority = Authority(place)
        authority.good = authority.server("mx.test", "mta-sts.sts.test")
        authority.bad = authority.server("other.example")
        yield authority


@pytest.fixture
def dns():
    server = DnsServer()
    for name in ("a", "sts", "rpt", "reports"):
        server.add(f"{name}.test", "MX", "10 mx.test")
    server.add("mx.test", "A", "127.0.0.1")
    yield server
    server.stop()


def trust(place, ca):
    path = os.path.join(place, "ca.pem")
    with open(path, "w", encoding="ascii") as f:
        f.write(ca.pem)
    os.chmod(path, 0o644)
    return path


def relay(place, dns, sink, ca, **config):
    config.setdefault("smtp_tls_CAfile", trust(place, ca))
    return Postern(place, resolver_nameservers=dns.address, smtp_tcp_port=str(sink.port),
                   resolver_permit_networks="127.0.0.0/8", minimal_backoff_time="1s", **config)


def tls_sink(certificate):
    return Sink(tls_context=certificate.context())


def attempt(p, queue_id):
    def found():
        return [e for e in p.events()
                if e["id"] == queue_id and e["event"] in ("delivered", "deferred", "bounced")]
    return wait_until(found, 20, "an attempt")[0]


def test_opportunistic(place, dns, ca):
    with tls_sink(ca.good) as sink, relay(place, dns, sink, ca) as p:
        queue_id = p.send("s@src.test", ["r@a.test"], MAIL)
        p.wait_log(r"postern/relay\[\d+\]: Trusted TLS connection established to "
                   r"mx\.test\[127\.0\.0\.1\]:\d+: TLSv1\.3 with cipher \S+ \(256/256 bits\)")
        p.wait_log(rf"{queue_id}: to=<r@a\.test>, relay=mx\.test.*status=sent")
        event = attempt(p, queue_id)
        assert event["tls"].startswith("TLSv1.3 with cipher ") and event["tls_peer"] == "trusted"
        shown = json.loads(p.ctl("site", "show", "a.test", "--json"))["site"]
        assert shown["tls"] == [{"host": "", "level": "may", "origin": "main.cf"}], shown
        assert shown["tls_last"].startswith("trusted TLSv1.3 with cipher ")


def test_tables_and_authorities_take_effect_when_they_change(place, dns, ca):
    table = os.path.join(place, "tls_policy")
    authorities = os.path.join(place, "own.pem")
    for path in (table, authorities):
        with open(path, "w", encoding="ascii"):
            pass
        os.chmod(path, 0o644)
    with tls_sink(ca.bad) as sink, relay(place, dns, sink, ca, smtp_tls_CAfile=authorities,
                                         smtp_tls_policy_maps=f"texthash:{table}") as p:
        assert attempt(p, p.send("s@src.test", ["r@a.test"], MAIL))["tls_peer"] == "untrusted"
        with open(table, "w", encoding="ascii") as f:
            f.write("a.test secure match=other.example\n")
        p.wait_log("smtp_tls_policy_maps: a file has changed")
        with open(authorities, "w", encoding="ascii") as f:
            f.write(ca.pem)
        p.wait_log("smtp_tls_CAfile: a file has changed")
        p.ctl("reload")
        wait_until(lambda: attempt(p, p.send("s@src.test", ["r@a.test"], MAIL))["tls_peer"]
                   == "verified", 30, "a verified connection")


def test_bad_configuration_is_refused(place, dns, ca):
    cases = [("smtp_tls_CAfile", "/nonexistent/ca.pem", "smtp_tls_CAfile: .*/nonexistent/ca.pem"),
             ("smtp_tls_policy_maps", "hash:/etc/x", "smtp_tls_policy_maps: .*not supported"),
             ("smtp_tls_protocols", "SSLv3", "smtp_tls_protocols: leaves no version"),
             ("smtp_tls_secure_cert_match", "a b/c", "smtp_tls_secure_cert_match: .*no name")]
    for name, value, text in cases:
        p = Postern(place, start=False, **{name: value})
        done = p.ctl("check", check=False)
        import re
        assert re.search(text, done.stdout + done.stderr), (name, done.stdout, done.stderr)
        os.remove(p.path("main.cf"))


def test_check_finds_settings_that_do_nothing(place):
    Postern(place, start=False, smtp_tls_security_level="dane")
    p = Postern(place, start=False, smtp_tls_security_level="dane", smtp_tls_CAfile="")
    out = p.ctl("check", check=False).stdout
    assert "warning: smtp_tls_security_level = dane without resolver_trust_anchor" in out
    assert "no server's certificate can be verified" in out


def test_authorities_of_a_directory(place, dns, ca):
    directory = os.path.join(place, "authorities")
    os.mkdir(directory)
    with open(os.path.join(directory, "ours.pem"), "w", encoding="ascii") as f:
        f.write(ca.pem)
    with open(os.path.join(directory, "README"), "w", encoding="ascii") as f:
        f.write("not a certificate\n")
    os.symlink("ours.pem", os.path.join(directory, "0123abcd.0"))
    with tls_sink(ca.good) as sink, relay(place, dns, sink, ca, smtp_tls_CAfile="",
                                          smtp_tls_CApath=directory,
                                          smtp_tls_security_level="verify") as p:
        event = attempt(p, p.send("s@src.test", ["r@a.test"], MAIL))
        assert (event["event"], event["tls_peer"]) == ("delivered", "verified"), event


def test_requiretls_all_the_way(place, dns, ca):
    """A client asks for it under TLS; the next server does not offer it."""
    server = ca.server("relay.test")
    os.chmod(server.key, 0o600)
    with tls_sink(ca.good) as sink:
        p = relay(place, dns, sink, ca, start=False, smtpd_tls_security_level="may",
                  smtpd_tls_cert_file=server.chain, smtpd_tls_key_file=server.key)
        p.start()
        with p, p.client() as c:
            c.ehlo()
            assert "requiretls" not in c.esmtp_features
            code, text = c.docmd("MAIL", "FROM:<s@src.test> REQUIRETLS")
            assert (code, text) == (555, b"5.5.4 REQUIRETLS is for connections with TLS")
            c.starttls()
            c.ehlo()
            assert "requiretls" in c.esmtp_features
            assert c.mail("s@src.test", ["REQUIRETLS"])[0] == 250
            assert c.rcpt("r@a.test")[0] == 250
            queue_id = c.data(MAIL)[1].decode().rsplit(" ", 1)[-1]
            event = attempt(p, queue_id)
            assert (event["event"], event["status"]) == ("bounced", "5.7.30")
            assert "neither DNSSEC nor MTA-STS vouches for the name" in event["text"]
        assert not [m for m in sink.messages if m.recipients == ["r@a.test"]]


class Requiring(SMTP):
    """A server that offers REQUIRETLS behind TLS, and notes who asks for it."""
    asked = []

    async def smtp_EHLO(self, hostname):
        push = self.push

        async def with_keyword(status):
            lines = status if isinstance(status, (str, bytes)) else str(status)
            if str(lines).startswith("250 ") and self.session.ssl:
                await push("250-REQUIRETLS")
            await push(status)
        self.push = with_keyword
        try:
            await super().smtp_EHLO(hostname)
        finally:
            del self.push

    async def smtp_MAIL(self, arg):
        if arg and " REQUIRETLS" in arg:
            self.asked.append(arg)
            arg = arg.replace(" REQUIRETLS", "")
        await super().smtp_MAIL(arg)


def required(p, recipient, content=MAIL):
    """A message that requires TLS; its queue ID."""
    with p.client() as c:
        c.starttls()
        c.ehlo()
        assert c.mail("s@src.test", ["REQUIRETLS"])[0] == 250
        assert c.rcpt(recipient)[0] == 250
        return c.data(content)[1].decode().rsplit(" ", 1)[-1]


def tls_of(ca):
    server = ca.server("relay.test")
    os.chmod(server.key, 0o600)
    return {"smtpd_tls_security_level": "may", "smtpd_tls_cert_file": server.chain,
            "smtpd_tls_key_file": server.key}


def test_requiretls_from_one_relay_to_the_next(place, dns, ca):
    """Postern hands a message to another Postern, which offers REQUIRETLS and asks the same
    of the next server: one that offers it gets the message, with the keyword; one that does
    not makes it come back."""
    dns.add("_mta-sts.sts.test", "TXT", '"v=STSv1; id=1;"')
    dns.add("mta-sts.sts.test", "A", "127.0.0.1")
    last, plain = Sink(tls_context=ca.good.context()), tls_sink(ca.good)
    last.controller.factory = lambda: Requiring(last, **last.controller.SMTP_kwargs)
    second_place = os.path.join(place, "second")
    os.makedirs(second_place)
    with last, plain, PolicyHost(ca.good) as host:
        host.policy("sts.test", mx=("mx.test",))
        common = {"smtp_tls_mta_sts_port": str(host.port)}
        good = {"smtpd_tls_security_level": "may", "smtpd_tls_cert_file": ca.good.chain,
                "smtpd_tls_key_file": ca.good.key}
        os.chmod(ca.good.key, 0o600)
        with relay(second_place, dns, last, ca, **good, **common) as second:
            first = relay(place, dns, second, ca, start=False, **tls_of(ca), **common)
            first.write_config(smtp_tcp_port=str(second.port))
            first.start()
            with first:
                event = attempt(first, required(first, "r@sts.test"))
                assert (event["event"], event["tls_peer"]) == ("delivered", "verified"), event
                last.wait(1)
                assert [m.recipients for m in last.messages] == [["r@sts.test"]]
                assert len(Requiring.asked) == 1
                # without the wish there is no keyword
                attempt(first, first.send("s@src.test", ["q@sts.test"], MAIL))
                last.wait(2)
                assert len(Requiring.asked) == 1
                # the server behind the next one does not offer it: RFC 8689 section 4.1
                second.stop()
                second.write_config(smtp_tcp_port=str(plain.port))
                second.start()
                event = attempt(first, required(first, "x@sts.test"))
                assert event["event"] == "delivered", event

                def came_back():
                    return [e for e in second.events() if e.get("to") == "x@sts.test" and
                            e["event"] in ("delivered", "bounced", "deferred")]
                (event,) = wait_until(came_back, 20, "its end at the second relay")
                assert (event["event"], event["status"]) == ("bounced", "5.7.30"), event
                assert "does not offer" in event["text"]
                assert not [m for m in plain.messages if m.recipients == ["x@sts.test"]]


@pytest.mark.parametrize("offered", [True, False])
def test_requiretls_holds_for_the_notice(place, dns, ca, offered):
    """RFC 8689 section 5: it asks for REQUIRETLS where that is offered, has nothing of the
    message, and arrives where it is not offered, too."""
    dns.add("_mta-sts.sts.test", "TXT", '"v=STSv1; id=1;"')
    dns.add("mta-sts.sts.test", "A", "127.0.0.1")
    dns.add("src.test", "MX", "10 mx.test")
    secret = b"Subject: my secret\r\nX-Secret: word\r\n\r\nsecret body\r\n"
    keyword = Sink(tls_context=ca.good.context())
    keyword.controller.factory = lambda: Requiring(keyword, **keyword.controller.SMTP_kwargs)
    Requiring.asked.clear()
    with PolicyHost(ca.good) as host, keyword if offered else tls_sink(ca.good) as sink:
        sink.replies = {"bad@sts.test": "550 5.1.1 nobody"}
        host.policy("sts.test", mx=("mx.test",))
        p = relay(place, dns, sink, ca, start=False, smtp_tls_mta_sts_port=str(host.port),
                  **tls_of(ca))
        p.start()
        with p:
            event = attempt(p, required(p, "bad@sts.test", secret))
            assert (event["event"], event["status"]) == \
                ("bounced", "5.1.1" if offered else "5.7.30"), event
            notice = sink.wait(1)[0]
        assert (notice.sender, notice.recipients) == ("<>", ["s@src.test"])
        assert b"bad@sts.test" in notice.content and b"secret" not in notice.content.lower()
        assert b"Your message required TLS on its whole way" in notice.content
        assert [a.split()[0] for a in Requiring.asked] == \
            (["FROM:<s@src.test>", "FROM:<>"] if offered else [])


@pytest.mark.parametrize("certificate, keyword, event, text", [
    ("good", False, "bounced", "which mx.test[127.0.0.1] does not offer"),
    ("bad", True, "bounced", "its certificate is for other names")])
def test_requiretls_that_the_server_cannot_keep(place, dns, ca, certificate, keyword, event, text):
    dns.add("_mta-sts.sts.test", "TXT", '"v=STSv1; id=1;"')
    dns.add("mta-sts.sts.test", "A", "127.0.0.1")
    with PolicyHost(ca.good) as host, tls_sink(getattr(ca, certificate)) as sink:
        if keyword:
            sink.controller.factory = lambda: Requiring(sink, **sink.controller.SMTP_kwargs)
        host.policy("sts.test", mx=("mx.test",))
        p = relay(place, dns, sink, ca, start=False, smtp_tls_mta_sts_port=str(host.port),
                  **tls_of(ca))
        p.start()
        with p:
            seen = attempt(p, required(p, "r@sts.test"))
            assert (seen["event"], seen["status"]) == (event, "5.7.30"), seen
            assert text in seen["text"]
        assert not [m for m in sink.messages if m.recipients == ["r@sts.test"]]


def test_mta_sts_defers_a_server_that_is_not_the_one(place, dns, ca):
    dns.add("_mta-sts.sts.test", "TXT", '"v=STSv1; id=1;"')
    dns.add("mta-sts.sts.test", "A", "127.0.0.1")
    with PolicyHost(ca.good) as host, tls_sink(ca.bad) as sink, \
            relay(place, dns, sink, ca, smtp_tls_mta_sts_port=str(host.port)) as p:
        host.policy("sts.test", mx=("mx.test",))
        queue_id = p.send("s@src.test", ["r@sts.test"], MAIL)
        p.wait_log(rf"{queue_id}: .*dsn=4\.7\.5, status=deferred \(the certificate of mx\.test"
                   r"\[127\.0\.0\.1\] is not accepted \(MTA-STS\): its certificate is for other "
                   r"names\)")
        assert not sink.messages
        # others with the same MX host are not concerned
        assert attempt(p, p.send("s@src.test", ["r@a.test"], MAIL))["event"] == "delivered"


def test_B72_dane_of_a_real_signed_zone(place, ca):
    with tls_sink(ca.good) as sink:
        zone = "ns A 127.0.0.1\nmx A 127.0.0.1\nmy A 127.0.0.1\na MX 10 mx\nb MX 10 my\n" \
            "c MX 10 al\nal CNAME mx\nd MX 10 bl\nbl CNAME my\n" \
            f"_{sink.port}._tcp.mx TLSA {ca.good.tlsa(3, 1, 1)}\n" \
            f"_{sink.port}._tcp.my TLSA {ca.bad.tlsa(3, 1, 1)}\n"
        with SignedZones({"test": zone}, signed=["test"]) as zones:
            os.chmod(os.path.dirname(zones.anchor), 0o755)
            with relay(place, zones, sink, ca, resolver_trust_anchor=zones.anchor,
                       smtp_tls_security_level="dane") as p:
                event = attempt(p, p.send("s@src.test", ["r@a.test"], MAIL))
                assert (event["event"], event["tls_peer"]) == ("delivered", "verified")
                event = attempt(p, p.send("s@src.test", ["r@b.test"], MAIL))
                assert (event["event"], event["status"]) == ("deferred", "4.7.5")
                assert "is not accepted (DANE)" in event["text"]
                # an alias (RFC 7672 section 2.2.2): as where it ends
                event = attempt(p, p.send("s@src.test", ["r@c.test"], MAIL))
                assert (event["event"], event["tls_peer"]) == ("delivered", "verified")
                event = attempt(p, p.send("s@src.test", ["r@d.test"], MAIL))
                assert (event["event"], event["status"]) == ("deferred", "4.7.5")
        assert len(sink.messages) == 2


def test_B58_broken_tlsa_records_cannot_be_used(place, ca):
    """Whole certificates or keys that are none: RFC 7671 section 4.1. Where all records are such
    TLS is required, and no certificate is; beside a good record they change nothing."""
    whole = ca.bad.tlsa(3, 0, 0)
    with tls_sink(ca.good) as sink, Sink() as clear:
        records = {"a": ["3 0 0 deadbeef"], "b": ["3 1 0 deadbeef"], "c": [whole + "00"],
                   "d": [ca.good.tlsa(3, 0, 0)], "e": [ca.good.tlsa(3, 1, 0)],
                   "f": ["3 0 0 deadbeef", ca.bad.tlsa(3, 1, 1)], "g": [whole]}
        ends = {"a": "delivered", "b": "delivered", "c": "delivered", "d": "verified",
                "e": "verified", "f": "deferred", "g": "deferred"}
        zone = "ns A 127.0.0.1\n" + "".join(
            f"{n} MX 10 mx.{n}\nmx.{n} A 127.0.0.1\n" + "".join(
                f"_{port}._tcp.mx.{n} TLSA {r}\n" for r in some for port in (sink.port, clear.port))
            for n, some in records.items())
        with SignedZones({"test": zone}, signed=["test"]) as zones:
            os.chmod(os.path.dirname(zones.anchor), 0o755)
            with relay(place, zones, sink, ca, resolver_trust_anchor=zones.anchor,
                       smtp_tls_security_level="dane") as p:
                for name, end in ends.items():
                    event = attempt(p, p.send("s@src.test", [f"r@{name}.test"], MAIL))
                    if end == "verified":
                        assert (event["event"], event["tls_peer"]) == ("delivered", "verified"), name
                    else:
                        assert event["event"] == end, (name, event)
                        assert event["tls_peer"] != "verified", (name, event)
                    if end == "deferred":
                        assert "is not accepted (DANE)" in event["text"]
                    else:
                        assert event["tls"].startswith("TLSv1"), (name, event)
                p.stop()
                p.write_config(smtp_tcp_port=str(clear.port))
                p.start()
                event = attempt(p, p.send("s@src.test", ["x@a.test"], MAIL))
                assert (event["event"], event["status"]) == ("deferred", "4.7.4"), event
        assert not clear.messages


def test_tls_required_no_in_the_header(place, dns, ca):
    dns.add("_mta-sts.sts.test", "TXT", '"v=STSv1; id=1;"')
    dns.add("mta-sts.sts.test", "A", "127.0.0.1")
    with PolicyHost(ca.good) as host, tls_sink(ca.bad) as sink, \
            relay(place, dns, sink, ca, smtp_tls_mta_sts_port=str(host.port)) as p:
        host.policy("sts.test", mx=("mx.test",))
        queue_id = p.send("s@src.test", ["r@sts.test"], b"TLS-Required: No\r\n" + MAIL)
        assert attempt(p, queue_id)["event"] == "delivered"


def test_tls_required_no_does_not_overrule_the_operator(place, dns, ca):
    dns.add("_mta-sts.sts.test", "TXT", '"v=STSv1; id=1;"')
    dns.add("mta-sts.sts.test", "A", "127.0.0.1")
    with PolicyHost(ca.good) as host, Sink() as sink, \
            relay(place, dns, sink, ca, smtp_tls_security_level="encrypt",
                  smtp_tls_mta_sts_port=str(host.port)) as p:
        host.policy("sts.test", mx=("mx.test",))
        queue_id = p.send("s@src.test", ["r@sts.test"], b"TLS-Required: No\r\n" + MAIL)
        assert attempt(p, queue_id)["event"] == "deferred"
        assert not sink.messages


def test_tls_required_no_and_dane_only(place, ca):
    """The operator's dane-only is not the domain's wish: a mismatch is still deferred. Where DANE
    is only what the domain asks for (level dane), it is set aside (RFC 8689 section 3)."""
    with tls_sink(ca.good) as sink:
        zone = "ns A 127.0.0.1\nmx A 127.0.0.1\na MX 10 mx\n" \
            f"_{sink.port}._tcp.mx TLSA {ca.bad.tlsa(3, 1, 1)}\n"
        with SignedZones({"test": zone}, signed=["test"]) as zones:
            os.chmod(os.path.dirname(zones.anchor), 0o755)
            for level, outcome in (("dane-only", "deferred"), ("dane", "delivered")):
                os.makedirs(os.path.join(place, level))
                with relay(os.path.join(place, level), zones, sink, ca,
                           resolver_trust_anchor=zones.anchor,
                           smtp_tls_security_level=level) as p:
                    queue_id = p.send("s@src.test", ["r@a.test"], b"TLS-Required: No\r\n" + MAIL)
                    event = attempt(p, queue_id)
                    assert event["event"] == outcome, (level, event)
                    if outcome == "deferred":
                        assert "(DANE)" in event["text"], event
                        assert not sink.messages


def read_report(message):
    mail = email.message_from_bytes(message.content)
    assert mail.get_content_type() == "multipart/report"
    assert mail.get_param("report-type") == "tlsrpt"
    text, packed = mail.get_payload()
    assert packed.get_content_type() == "application/tlsrpt+gzip"
    return mail, json.loads(gzip.decompress(base64.b64decode(packed.get_payload())))


def test_reports(place, dns, ca):
    dns.add("_smtp._tls.rpt.test", "TXT", '"v=TLSRPTv1; rua=mailto:tls@reports.test"')
    with tls_sink(ca.good) as sink, \
            relay(place, dns, sink, ca, smtp_tlsrpt_enable="yes", smtp_tlsrpt_period="4s",
                  smtp_connection_cache_time_limit="0s") as p:
        for _ in range(2):
            attempt(p, p.send("s@src.test", ["r@rpt.test"], MAIL))
        p.wait_log(r"TLSRPT: the report for rpt\.test goes to tls@reports\.test", 40)
        wait_until(lambda: any(m.recipients == ["tls@reports.test"] for m in sink.messages), 20,
                   "the report")
        found = [read_report(m) for m in sink.messages if m.recipients == ["tls@reports.test"]]
        mail, report = found[0]
        assert mail["TLS-Report-Domain"] == "rpt.test"
        assert "Report Domain: rpt.test" in mail["Subject"]
        assert report["organization-name"] == "relay.test"
        policies = [q for _, r in found for q in r["policies"]]
        assert {q["policy"]["policy-type"] for q in policies} == {"no-policy-found"}
        assert all(q["policy"]["policy-domain"] == "rpt.test" for q in policies)
        assert sum(q["summary"]["total-successful-session-count"] for q in policies) in (1, 2)
        assert all(q["summary"]["total-failure-session-count"] == 0 for q in policies)


def test_reports_of_failures_survive_a_restart(place, dns, ca):
    dns.add("_smtp._tls.sts.test", "TXT", '"v=TLSRPTv1; rua=mailto:tls@reports.test"')
    dns.add("_mta-sts.sts.test", "TXT", '"v=STSv1; id=1;"')
    dns.add("mta-sts.sts.test", "A", "127.0.0.1")
    with PolicyHost(ca.good) as host, tls_sink(ca.bad) as sink:
        p = relay(place, dns, sink, ca, smtp_tls_mta_sts_port=str(host.port),
                  smtp_tlsrpt_enable="yes")
        host.policy("sts.test", mx=("mx.test",))
        with p:
            event = attempt(p, p.send("s@src.test", ["r@sts.test"], MAIL))
            assert event["event"] == "deferred"
        p.write_config(smtp_tlsrpt_period="2s")  # the period of before is over
        p.start()
        with p:
            p.wait_log(r"TLSRPT: the report for sts\.test goes to tls@reports\.test", 40)
            wait_until(lambda: any(m.recipients == ["tls@reports.test"] for m in sink.messages),
                       20, "the report")
        message = [m for m in sink.messages if m.recipients == ["tls@reports.test"]][0]
        policy = read_report(message)[1]["policies"][0]
        assert policy["policy"]["policy-type"] == "sts"
        assert policy["policy"]["mx-host"] == ["mx.test"]
        assert policy["summary"]["total-failure-session-count"] >= 1
        detail = policy["failure-details"][0]
        assert (detail["result-type"], detail["receiving-mx-hostname"], detail["receiving-ip"],
                detail["sending-mta-ip"]) == \
            ("certificate-host-mismatch", "mx.test", "127.0.0.1", "127.0.0.1")
