"""TLS to other servers: levels, verification, resumption, what goes wrong."""
import contextlib
import os
import socket
import ssl
import struct
import tempfile
import threading
import time

import pytest

from certs import Authority
from relay_rig import (DEFERRED, FAILED, LMTP, SENT, Hangup, Relay, Script, only)

NONE, MAY, ENCRYPT, DANE, DANE_ONLY, VERIFY, SECURE, FORBIDDEN = range(8)
CONFIG, TABLE, BY_DANE, BY_STS = range(4)
AUTHENTIC, TESTING = 1, 2
REQUIRETLS, TLS_OPTIONAL = 16, 64
UNTRUSTED, TRUSTED, VERIFIED = 1, 2, 3


@pytest.fixture(scope="module")
def ca():
    with tempfile.TemporaryDirectory(prefix="postern-") as place:
        authority = Authority(place)
        authority.good = authority.server("mx0.test")
        authority.other = authority.server("mx9.test")
        authority.expired = authority.server("mx0.test", days="-1")
        authority.self_signed = authority.server("mx0.test", self_signed=True)
        yield authority


def rule(level, **fields):
    fields.setdefault("names", "hostname")
    fields.setdefault("servername", "hostname")
    return [dict(level=level, **fields)]


def starttls(certificate, *keywords, after=None, versions=None, note=None, verb="EHLO", **options):
    """A server that offers STARTTLS, and mail only behind it."""
    context = certificate.context(versions)

    def handler(c):
        c.hello("STARTTLS", "PIPELINING", verb=verb)
        try:
            c.expect("STARTTLS")
            c.send("220 go ahead")
            c.sock = context.wrap_socket(c.sock, server_side=True)
        except (ssl.SSLError, ConnectionError) as e:
            raise Hangup() from e
        c.resumed = c.sock.session_reused
        c.secured = True
        after_tls(c, keywords, options, verb)

    return handler


def after_tls(c, keywords, options, verb="EHLO"):
    c.expect(verb)
    words = ["peer.test", "PIPELINING", *keywords]
    c.send(*[f"250{'-' if i < len(words) - 1 else ' '}{w}" for i, w in enumerate(words)])
    with contextlib.suppress(Hangup, ssl.SSLError):
        while True:
            c._command(options.get("replies") or {}, options.get("dot", "250 2.0.0 Ok"),
                       "250 2.1.0 Ok")


def plain(*keywords):
    return lambda c: c.mail_session(*keywords)


@contextlib.contextmanager
def relay_with(ca, **config):
    with Relay(**config) as relay:
        relay.master.table("smtp_tls_CAfile", 0, "ca.pem", ca.pem)
        yield relay


def deliver(relay, server, tls, **fields):
    relay.deliver(server, ["r@dst.test"], tls=tls, **fields)
    result = relay.result()
    return result, only(result)


def test_may_uses_tls_where_it_is_offered(ca):
    with Script(starttls(ca.self_signed)) as server, relay_with(ca) as relay:
        result, outcome = deliver(relay, server, rule(MAY), body=b"Subject: x\r\n\r\n.dots\r\n")
        assert outcome.status == SENT
        assert result.tls.startswith(b"TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)")
        assert result.tls_status == UNTRUSTED
        relay.master.wait_log(r"Untrusted TLS connection established to mx0\.test\[127\.0\.0\.1\]"
                              r":\d+: TLSv1\.3 with cipher \S+ \(256/256 bits\)")
    assert server.connections[0].secured
    assert server.connections[0].content == b"Subject: x\r\n\r\n.dots\r\n"


def test_a_server_that_waits_for_our_last_word_gets_it_at_once(ca):
    """Its own comes with the reply to QUIT, and its end of the connection stays open meanwhile."""
    waited, done = [], threading.Semaphore(0)

    def says_both(c):
        context = ca.good.context(None)
        c.hello("STARTTLS")
        c.expect("STARTTLS")
        c.send("220 go ahead")
        c.sock = context.wrap_socket(c.sock, server_side=True)
        c.expect("EHLO")
        c.send("250 peer.test")
        for verb, reply in (("MAIL", "250 Ok"), ("RCPT", "250 Ok"), ("DATA", "354 go ahead")):
            c.expect(verb)
            c.send(reply)
        c.until_dot()
        c.send("250 Ok")
        c.expect("QUIT")
        c.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)  # one segment for both
        began = time.monotonic()
        c.send("221 bye")
        with contextlib.suppress(OSError):
            c.sock.unwrap()
        waited.append(time.monotonic() - began)
        done.release()

    with Script(says_both) as server, relay_with(ca) as relay:
        for _ in range(3):  # a busy machine may be late once
            assert deliver(relay, server, rule(MAY))[1].status == SENT
            assert done.acquire(timeout=20)
        assert min(waited) < 0.9, waited


def test_may_goes_without_tls_where_it_is_not_offered(ca):
    with Script(plain()) as server, relay_with(ca) as relay:
        result, outcome = deliver(relay, server, rule(MAY))
        assert (outcome.status, result.tls, result.tls_status) == (SENT, b"", 0)


def test_none_never_uses_it(ca):
    with Script(plain("STARTTLS")) as server, relay_with(ca) as relay:
        assert deliver(relay, server, rule(NONE))[1].status == SENT
        assert deliver(relay, server, [])[1].status == SENT


@pytest.mark.parametrize("level", [ENCRYPT, VERIFY, SECURE])
def test_mandatory_tls_that_is_not_offered_defers(ca, level):
    with Script(plain()) as server, relay_with(ca) as relay:
        outcome = deliver(relay, server, rule(level))[1]
        assert (outcome.status, outcome.enhanced) == (DEFERRED, b"4.7.4")
        assert b"TLS is required (smtp_tls_security_level), but mx0.test" in outcome.text


def test_may_falls_back_and_remembers(ca):
    def broken(c):
        c.hello("STARTTLS")
        c.expect("STARTTLS")
        c.send("220 go ahead")
        c.sock.recv(10)
        c.sock.sendall(b"this is not TLS\r\n" * 3)

    with Script(broken, plain("STARTTLS"), plain("STARTTLS")) as server, relay_with(ca) as relay:
        for _ in range(2):
            assert deliver(relay, server, rule(MAY))[1].status == SENT
        relay.master.wait_log(r"warning: TLS with mx0\.test\[127\.0\.0\.1\]:\d+ failed: .*; "
                              r"clear text for 600s")
    assert len(server.connections) == 3  # the second message did not try TLS


def test_encrypt_does_not_fall_back(ca):
    def broken(c):
        c.hello("STARTTLS")
        c.expect("STARTTLS")
        c.send("220 go ahead")
        c.sock.recv(10)

    with Script(broken) as server, relay_with(ca) as relay:
        outcome = deliver(relay, server, rule(ENCRYPT))[1]
        assert (outcome.status, outcome.enhanced) == (DEFERRED, b"4.7.5")
        assert outcome.text.startswith(b"TLS with mx0.test[127.0.0.1] failed: ")


@pytest.mark.parametrize("reply,level,status", [
    ("454 4.7.0 TLS not available", MAY, SENT), ("502 5.5.1 what", MAY, SENT),
    ("454 4.7.0 TLS not available", ENCRYPT, DEFERRED), ("502 5.5.1 what", ENCRYPT, DEFERRED)])
def test_starttls_refused(ca, reply, level, status):
    def refusing(c):
        c.hello("STARTTLS")
        c.expect("STARTTLS")
        c.send(reply)
        with contextlib.suppress(Hangup):
            while True:
                c._command({}, "250 Ok", "250 Ok")

    with Script(refusing) as server, relay_with(ca) as relay:
        assert deliver(relay, server, rule(level))[1].status == status


@pytest.mark.parametrize("certificate, level, status", [
    ("good", MAY, SENT), ("self_signed", MAY, SENT), ("good", VERIFY, SENT),
    ("other", VERIFY, DEFERRED), ("self_signed", VERIFY, DEFERRED), ("self_signed", ENCRYPT, SENT)])
def test_lmtp_over_tls(ca, certificate, level, status):
    """LHLO again behind STARTTLS, a reply for each recipient, verification as with SMTP."""
    handler = starttls(getattr(ca, certificate), verb="LHLO", dot=["250 2.0.0 a", "250 2.0.0 b"])
    with Script(handler) as server, relay_with(ca) as relay:
        relay.deliver(server, ["a@dst.test", "b@dst.test"], transport=LMTP, tls=rule(level))
        assert [o.status for o in relay.result().outcomes] == [status] * 2
    assert server.connections[0].secured


def test_lmtp_without_the_tls_that_is_wanted(ca):
    def lmtp(c):
        c.mail_session("PIPELINING", verb="LHLO", dot=["250 ok"])

    with Script(lmtp, lmtp) as server, relay_with(ca) as relay:
        relay.deliver(server, ["a@dst.test"], transport=LMTP, tls=rule(ENCRYPT))
        outcome = only(relay.result())
        assert (outcome.status, outcome.enhanced) == (DEFERRED, b"4.7.4")
        assert b"(lmtp_tls_security_level)" in outcome.text
        # the last hop is the operator's own: REQUIRETLS asks nothing of it
        relay.deliver(server, ["a@dst.test"], transport=LMTP, flags=REQUIRETLS)
        assert only(relay.result()).status == SENT


def test_B48_plaintext_behind_the_reply_to_starttls(ca):
    def injecting(c):
        c.hello("STARTTLS")
        c.expect("STARTTLS")
        c.send("220 go ahead", "250-evil.test", "250 AUTH PLAIN")
        assert c.sock.recv(1) == b"", "the connection goes on"

    for level in (MAY, ENCRYPT):
        with Script(injecting) as server, relay_with(ca) as relay:
            outcome = deliver(relay, server, rule(level))[1]
            assert outcome.status == DEFERRED
            assert b"sent plaintext behind its reply while sending STARTTLS" in outcome.text


@pytest.mark.parametrize("certificate,level,names,status", [
    ("good", VERIFY, "hostname", SENT), ("other", VERIFY, "hostname", DEFERRED),
    ("other", SECURE, ".test", SENT), ("other", SECURE, "dst.test:.dst.test", DEFERRED),
    ("other", VERIFY, "hostname:mx9.test", SENT), ("expired", VERIFY, "hostname", DEFERRED),
    ("self_signed", VERIFY, "hostname", DEFERRED), ("expired", ENCRYPT, "hostname", SENT)])
def test_verification(ca, certificate, level, names, status):
    with Script(starttls(getattr(ca, certificate))) as server, relay_with(ca) as relay:
        result, outcome = deliver(relay, server, rule(level, names=names))
        assert outcome.status == status, outcome
        if status == SENT and level != ENCRYPT:
            assert result.tls_status == VERIFIED
            relay.master.wait_log(r"Verified TLS connection established to mx0\.test")
        if status == DEFERRED:
            assert outcome.enhanced == b"4.7.5"
            assert b"is not accepted (smtp_tls_security_level): " in outcome.text
    assert not (status == DEFERRED and server.connections[0].content)


def test_without_authorities_nothing_is_verified(ca):
    with Script(starttls(ca.good)) as server, Relay() as relay:
        assert deliver(relay, server, rule(VERIFY))[1].status == DEFERRED
        assert deliver(relay, server, rule(MAY))[1].status == SENT


def test_trusted_without_a_name(ca):
    with Script(starttls(ca.other)) as server, relay_with(ca) as relay:
        assert deliver(relay, server, rule(MAY))[0].tls_status == TRUSTED


def test_B70_old_versions_and_null_ciphers(ca):
    context = ca.good.context((ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1))
    context.set_ciphers("ALL:@SECLEVEL=0")
    null = ca.good.context((ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2))
    null.set_ciphers("eNULL:aNULL:@SECLEVEL=0")

    def server_with(used):
        def handler(c):
            c.hello("STARTTLS")
            c.expect("STARTTLS")
            c.send("220 go ahead")
            with contextlib.suppress(ssl.SSLError, OSError):
                used.wrap_socket(c.sock, server_side=True)
                raise AssertionError("the handshake succeeded")
        return handler

    for used in (context, null):
        with Script(server_with(used)) as server, relay_with(ca) as relay:
            outcome = deliver(relay, server, rule(ENCRYPT))[1]
            assert (outcome.status, outcome.enhanced) == (DEFERRED, b"4.7.5")


def test_tls_1_2(ca):
    versions = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2)
    with Script(starttls(ca.good, versions=versions)) as server, relay_with(ca) as relay:
        result, outcome = deliver(relay, server, rule(VERIFY))
        assert outcome.status == SENT
        assert result.tls.startswith(b"TLSv1.2 with cipher ECDHE-")


def test_B71_thousands_of_names(ca):
    huge = ca.server(names_text=",".join(f"DNS:n{i}.test" for i in range(10000)))
    with Script(starttls(huge)) as server, relay_with(ca) as relay:
        outcome = deliver(relay, server, rule(VERIFY))[1]
        assert (outcome.status, outcome.enhanced) == (DEFERRED, b"4.7.5")


def test_B71_a_chain_of_twenty(ca):
    """Each of its certificates is good, and signed by the one above it; short chains of the
    same kind are accepted."""
    for length, status in ((3, SENT), (20, DEFERRED)):
        server = ca.below(length, "mx0.test")
        with Script(starttls(server)) as s, relay_with(ca) as relay:
            outcome = deliver(relay, s, rule(VERIFY))[1]
            assert outcome.status == status, (length, outcome)
    assert outcome.enhanced == b"4.7.5" and b"chain too long" in outcome.text


def test_B74_a_handshake_that_dribbles(ca):
    def dribble(c):
        c.hello("STARTTLS")
        c.expect("STARTTLS")
        c.send("220 go ahead")
        c.sock.sendall(struct.pack("!BHH", 22, 0x303, 1000))
        with contextlib.suppress(OSError):
            while c.sock.recv(4096):
                c.sock.sendall(b"\0")

    with Script(dribble) as server, relay_with(ca, smtp_starttls_timeout="1s") as relay:
        outcome = deliver(relay, server, rule(ENCRYPT))[1]
        assert (outcome.status, outcome.text) == \
            (DEFERRED, b"TLS with mx0.test[127.0.0.1] failed: timed out")


def test_policy_of_protocols(ca):
    versions = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2)
    with Script(starttls(ca.good, versions=versions)) as server, relay_with(ca) as relay:
        assert deliver(relay, server, rule(ENCRYPT, protocols=">=TLSv1.3"))[1].status == DEFERRED
        assert deliver(relay, server, rule(ENCRYPT, protocols="TLSv1.2"))[1].status == SENT


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_resumption(ca, version):
    with Script(starttls(ca.good, versions=(version, version))) as server, \
            relay_with(ca) as relay:
        for _ in range(3):
            result, outcome = deliver(relay, server, rule(VERIFY))
            assert (outcome.status, result.tls_status) == (SENT, VERIFIED)
        # not for another rule: what was verified there is not what is asked here
        result, outcome = deliver(relay, server, rule(SECURE, names="mx9.test"))
        assert outcome.status == DEFERRED
    assert [c.resumed for c in server.connections] == [False, True, True, False]


def test_large_content_over_tls(ca):
    """Many records, with dots to stuff, from memory and from a file by BDAT."""
    from relay_rig import content_file
    content = b"Subject: x\r\n\r\n" + b".line of text\r\n" * 200000
    with Script(starttls(ca.good), starttls(ca.good, "CHUNKING")) as server, \
            relay_with(ca) as relay:
        for _ in range(2):
            fd = content_file(content)
            relay.deliver(server, ["r@dst.test"], tls=rule(VERIFY), fd=fd, body_len=len(content))
            os.close(fd)
            assert only(relay.result(60)).status == SENT
    assert [c.content == content for c in server.connections] == [True, True]


def test_sessions_are_shared_for_equal_rules_only(ca):
    with Script(starttls(ca.good), starttls(ca.good)) as server, \
            relay_with(ca, smtp_connection_cache_time_limit="5s") as relay:
        for tls in (rule(MAY), rule(MAY), rule(VERIFY), rule(VERIFY)):
            assert deliver(relay, server, tls)[1].status == SENT
    assert len(server.connections) == 2


# ---- DANE -----------------------------------------------------------------------------


def tlsa(*texts):
    out = []
    for text in texts:
        usage, selector, matching, data = text.split()
        out.append(dict(usage=int(usage), selector=int(selector), matching=int(matching),
                        data=bytes.fromhex(data)))
    return out


@pytest.mark.parametrize("usage,selector,matching", [
    (3, 1, 1), (3, 0, 1), (3, 1, 2), (3, 0, 0), (2, 0, 1), (2, 1, 2), (2, 0, 0)])
def test_dane_match(ca, usage, selector, matching):
    pinned = ca.good if usage == 3 else ca
    records = tlsa("3 1 1 " + "00" * 32, pinned.tlsa(usage, selector, matching))
    with Script(starttls(ca.good)) as server, Relay() as relay:
        result, outcome = deliver(relay, server, rule(DANE, origin=BY_DANE, tlsa=records))
        assert (outcome.status, result.tls_status) == (SENT, VERIFIED)


def test_dane_end_entity_may_be_expired_and_of_any_name(ca):
    for certificate in (ca.expired, ca.other, ca.self_signed):
        records = tlsa(certificate.tlsa(3, 1, 1))
        with Script(starttls(certificate)) as server, Relay() as relay:
            result, outcome = deliver(relay, server, rule(DANE, origin=BY_DANE, tlsa=records))
            assert (outcome.status, result.tls_status) == (SENT, VERIFIED)


def test_dane_trust_anchor_needs_the_name(ca):
    records = tlsa(ca.tlsa(2, 0, 1))
    with Script(starttls(ca.other)) as server, Relay() as relay:
        tls = rule(DANE, origin=BY_DANE, tlsa=records)
        assert deliver(relay, server, tls)[1].status == DEFERRED
        tls = rule(DANE, origin=BY_DANE, tlsa=records, names="hostname:mx9.test")
        assert deliver(relay, server, tls)[1].status == SENT


def test_B72_dane_mismatch_defers_and_is_reported(ca):
    records = tlsa(ca.other.tlsa(3, 1, 1))
    with Script(starttls(ca.good)) as server, relay_with(ca) as relay:
        relay.deliver(server, ["r@dst.test"], tls=rule(DANE, origin=BY_DANE, tlsa=records),
                      tls_report="dst.test")
        seen = relay.qmgr.expect("ipc_tls_session")
        assert (seen.domain, seen.origin, seen.result, seen.host) == \
            (b"dst.test", BY_DANE, 5, b"mx0.test")
        outcome = only(relay.result())
        assert (outcome.status, outcome.enhanced) == (DEFERRED, b"4.7.5")
        assert outcome.text.startswith(b"the certificate of mx0.test[127.0.0.1] is not accepted "
                                       b"(DANE): ")
    assert not server.connections[0].content


def test_what_rules_refuse_says_nothing_about_the_site(ca):
    """Else a domain could have the site of others suspended by its own policy."""
    with Script(starttls(ca.self_signed)) as server, relay_with(ca) as relay:
        for tls in (rule(VERIFY, origin=BY_STS), rule(FORBIDDEN, origin=BY_STS, why="no"),
                    rule(ENCRYPT, protocols="TLSv1.2"), rule(MAY)):
            result, outcome = deliver(relay, server, tls,
                                      flags=REQUIRETLS if tls[0]["level"] == MAY else 0)
            assert outcome.status in (DEFERRED, FAILED, SENT)
            assert outcome.status == SENT or result.scope == 1  # of the message
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with relay_with(ca) as relay:
        assert deliver(relay, [port], rule(VERIFY))[0].scope == 2  # of the site


def test_forbidden_hosts_are_not_asked(ca):
    with Script(plain()) as bad, Script(plain()) as good, relay_with(ca) as relay:
        tls = [dict(host="mx0.test", level=FORBIDDEN, origin=BY_DANE,
                    why="its TLSA records cannot be looked up"), *rule(MAY)]
        assert deliver(relay, [bad, good], tls)[1].status == SENT
        outcome = deliver(relay, [bad], tls)[1]
        assert (outcome.status, outcome.enhanced, outcome.text) == \
            (DEFERRED, b"4.7.5",
             b"mx0.test must not be used: its TLSA records cannot be looked up")
    assert (len(bad.connections), len(good.connections)) == (0, 1)


# ---- REQUIRETLS (RFC 8689) --------------------------------------------------------------


def test_requiretls(ca):
    tls = rule(MAY, flags=AUTHENTIC)
    with Script(starttls(ca.good, "REQUIRETLS")) as server, relay_with(ca) as relay:
        result, outcome = deliver(relay, server, tls, flags=REQUIRETLS)
        assert (outcome.status, result.tls_status) == (SENT, VERIFIED)
    assert "MAIL FROM:<s@src.test> REQUIRETLS" in server.connections[0].commands


@pytest.mark.parametrize("certificate,keywords,flags,text", [
    ("good", (), AUTHENTIC, b"which mx0.test[127.0.0.1] does not offer"),
    ("self_signed", ("REQUIRETLS",), AUTHENTIC, b"is not accepted (REQUIRETLS of the message)"),
    ("good", ("REQUIRETLS",), 0, b"neither DNSSEC nor MTA-STS vouches for the name")])
def test_requiretls_that_cannot_be_kept_is_returned(ca, certificate, keywords, flags, text):
    with Script(starttls(getattr(ca, certificate), *keywords)) as server, relay_with(ca) as relay:
        outcome = deliver(relay, server, rule(MAY, flags=flags), flags=REQUIRETLS)[1]
        assert (outcome.status, outcome.enhanced) == (FAILED, b"5.7.30")
        assert text in outcome.text
    assert not any(c.content for c in server.connections)


def test_requiretls_tries_all_servers_and_waits_for_those_that_are_down(ca):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with Script(starttls(ca.good)) as server, Script(starttls(ca.server("mx1.test"),
                                                              "REQUIRETLS")) as other, \
            relay_with(ca) as relay:
        tls = rule(MAY, flags=AUTHENTIC)
        assert deliver(relay, [server, other], tls, flags=REQUIRETLS)[1].status == SENT
        outcome = deliver(relay, [server, port], tls, flags=REQUIRETLS)[1]
        assert (outcome.status, outcome.enhanced) == (DEFERRED, b"4.4.1")


def test_tls_required_no_sets_aside_what_the_domain_asks_for(ca):
    records = tlsa(ca.other.tlsa(3, 1, 1))
    with Script(starttls(ca.self_signed)) as server, relay_with(ca) as relay:
        for tls, status in ((rule(DANE, origin=BY_DANE, tlsa=records), SENT),
                            (rule(VERIFY, origin=BY_STS), SENT),
                            (rule(VERIFY, origin=TABLE), DEFERRED)):
            assert deliver(relay, server, tls, flags=TLS_OPTIONAL)[1].status == status


# ---- MTA-STS ------------------------------------------------------------------------------


def test_sts_testing_reports_and_delivers(ca):
    with Script(starttls(ca.self_signed)) as server, relay_with(ca) as relay:
        relay.deliver(server, ["r@dst.test"], tls=rule(MAY, origin=BY_STS, flags=TESTING),
                      tls_report="dst.test")
        seen = relay.qmgr.expect("ipc_tls_session")
        assert (seen.origin, seen.result) == (BY_STS, 4)  # certificate-not-trusted
        assert only(relay.result()).status == SENT


def test_a_bad_rule_is_refused(ca):
    with Relay() as relay:
        relay.deliver([25], ["r@dst.test"], tls=[dict(level=77)])
        relay.master.wait_log("a rule about TLS with an undeclared level, origin or result")
