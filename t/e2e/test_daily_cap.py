"""Daily caps of providers.conf: one count of a source at a provider, from midnight to midnight UTC,
that holds over restarts; what is more goes from another source, or waits and says so."""
import json
import os
import select

import pytest

from dnsserver import DnsServer
from faults import Faults, available
from postern import Postern, wait_until
from qmgr_peers import FAILED, TARGET
from sink import Sink
from test_qmgr_operator import Control
from test_shaping import RCPT, refusal, rules
from test_shaping_why import becomes, why
from test_sources import A, B, sources

RULES = """
default { start_rate = "10000/s" start_connections = 100 connections = 200 }
provider big { mx = {".big.test"} daily_cap = 5 }
"""
OVERFLOW = """
source a { ipv4 = 127.0.0.11 }
source b { ipv4 = 127.0.0.12 }
pool default { sources = {a} overflow = ov }
pool ov { sources = {b} }
"""
BODY = b"Subject: x\r\n\r\nx\r\n"


def load(c, text):
    before = c.q.count(r"providers.conf: \d+ providers")
    rules(c, text)
    wait_until(lambda: c.q.count(r"providers.conf: \d+ providers") > before, 10, "the rules")


@pytest.fixture
def c():
    control = Control()
    load(control, RULES)
    yield control
    control.stop()


def big(q, domain="d.test", host="mx.big.test"):
    """Answers where mail to that domain goes: to the provider."""
    q.resolved(site=host, targets=[dict(TARGET, host=host, address=b"\x7f\x05\x05\x05")])


def names(count, domain="d.test"):
    return [f"r{i:02}@{domain}" for i in range(count)]


def parts(jobs):
    return [(job.source, [r.address.decode() for r in job.recipients]) for job in jobs]


def lane(c, destination, source=None):
    found = [line for line in c.ask(request="shaping.show", destination=destination)[:-1]
             if "destination" in line and source in (None, line["source"])]
    assert len(found) == 1, found
    return found[0]


def test_a_message_to_many_is_split_and_the_rest_overflows(c):
    """The cap is each address's own: five from one, five from the other; two wait."""
    q, all = c.q, names(12)
    sources(c, OVERFLOW)
    id = q.commit(all)
    big(q)
    jobs = [q.job(), q.job()]
    assert parts(jobs) == [(A, all[:5]), (B, all[5:10])]
    for address in all[10:]:
        q.wait_log(rf"{id}: to=<{address}>.*status=deferred .*source .: it has sent what it may "
                   r"today: 0 sent and 5 in line or under way of 5 a day \(daily_cap in providers.conf\)")
    shown = lane(c, "big", "127.0.0.11")
    assert (shown["used_today"], shown["waiting_today"], shown["allowed_today"]) == (0, 5, 5)
    for job in jobs:
        q.result(job)
    wait_until(lambda: lane(c, "big", "127.0.0.11")["used_today"] == 5, 10, "what was sent")
    assert q.relay.receive(0.3) is None


def test_without_sources_the_rest_waits(c):
    q, all = c.q, names(7)
    id = q.commit(all)
    big(q)
    assert parts([q.job()]) == [(b"", all[:5])]
    q.wait_log(rf"{id}: to=<{all[5]}>.*status=deferred \(this cannot be sent there today: 0 sent and 5 ")
    line = c.ask(request="shaping.why", id=id)
    assert {x.get("state") for x in line[:-1]} == {"delivering", "daily_cap"}


def test_what_was_refused_has_not_been_sent(c):
    q, all = c.q, names(5)
    q.commit(all)
    big(q)
    job = q.job()
    q.result(job, outcomes=[dict(refusal(550, "5.1.1 no such user", RCPT, FAILED), index=r.index)
                            for r in job.recipients])
    q.wait_log("status=bounced")
    q.noticed()
    wait_until(lambda: lane(c, "big")["waiting_today"] == 0, 10, "the end of these")
    other = [q.commit([f"x{i}@d.test"]) for i in range(5)]
    assert {q.job().id.decode() for _ in range(5)} == set(other)


def test_a_domain_with_a_cap_of_its_own_is_counted_by_itself(c):
    """What is inherited is the provider's, whatever the domain; an own number is the domain's."""
    q = c.q
    load(c, RULES + 'domain "own.test" { daily_cap = 2 }\ndomain "kin.test" { connections = 3 }\n')
    q.commit(names(4, "d.test"))
    big(q)
    assert len(q.job().recipients) == 4
    kin = q.commit(names(4, "kin.test"))
    big(q)
    assert len(q.job().recipients) == 1
    q.wait_log(rf"{kin}: .*status=deferred \(this cannot be sent there today: 0 sent and 5 ")
    own = q.commit(names(4, "own.test"))
    big(q)
    assert len(q.job().recipients) == 2
    q.wait_log(rf"{own}: .*status=deferred \(this cannot be sent there today: 0 sent and 2 ")


def test_of_default_it_is_each_destinations_own(c):
    q = c.q
    load(c, 'default { start_rate = "10000/s" daily_cap = 2 }')
    for domain in "one.test", "two.test":
        q.commit(names(3, domain))
        q.resolved()
        assert len(q.job().recipients) == 2
    assert lane(c, "one.test")["waiting_today"] == 2


def test_a_lower_cap_holds_for_what_is_in_line_and_a_higher_one_lets_go(c):
    q = c.q
    load(c, RULES.replace("daily_cap = 5", "connections = 1 start_connections = 1"))
    ids = [q.commit([f"r{i}@d.test"]) for i in range(1)]
    big(q)
    first = q.job()
    ids += [q.commit([f"r{i}@d.test"]) for i in range(1, 6)]
    wait_until(lambda: lane(c, "big")["queued"] == 5, 10, "mail in line")
    load(c, RULES.replace("daily_cap = 5", "connections = 1 start_connections = 1 daily_cap = 3"))
    for id in ids[3:]:
        q.wait_log(rf"{id}: .*status=deferred \(this cannot be sent there today: 0 sent and 3 ")
    q.result(first)
    for id in ids[1:3]:
        job = q.job()
        assert job.id.decode() == id
        q.result(job)
    becomes(c, ids[3], "daily_cap")
    assert q.relay.receive(0.3) is None
    load(c, RULES.replace("daily_cap = 5", "daily_cap = 100"))
    # some seconds after a change of the rules domains are looked up anew
    if q.resolve.sock in select.select([q.resolve.sock, q.relay.sock], [], [], 10)[0]:
        big(q)
    late = []
    for _ in ids[3:]:
        job = q.job()
        late.append(job.id.decode())
        q.result(job)
    assert sorted(late) == sorted(ids[3:])


@pytest.mark.skipif(not available(), reason="needs a build with -DPOSTERN_FAULTS=ON")
def test_F31_the_day_is_that_of_the_clock(tmp_path):
    """At midnight UTC there is room again; a clock that is set back gives none."""
    faults = Faults(str(tmp_path))
    os.chmod(faults.path, 0o666)  # qmgr runs as its own user
    c = Control(environment=faults.environment)
    try:
        load(c, RULES)
        q = c.q
        q.commit(names(5))
        big(q)
        q.result(q.job())
        late = q.commit(["late@d.test"])
        assert 0 < becomes(c, late, "daily_cap")["ends_in"] <= 86400
        faults.shift("wall", -3 * 86400)
        c.act("flush", late)
        wait_until(lambda: q.count(rf"{late}: .*5 sent of 5 a day") == 2, 10, "it waits again")
        faults.clear()
        faults.shift("wall", 86400)
        c.act("flush", late)
        assert q.job().id.decode() == late
    finally:
        c.stop()


def test_it_is_known_after_a_restart_and_told(tmp_path):
    """Of a provider, from a source; and of a domain, from the default address."""
    conf = tmp_path / "providers.conf"
    conf.write_text('provider big { hosts = {"mx.big.test"} daily_cap = 3 }\n'
                    'domain "own.test" { daily_cap = 2 }\n')
    dns = DnsServer()
    with Sink() as sink:
        for domain, host in (("d.test", "mx.big.test"), ("own.test", "mx.own.test")):
            dns.add(domain, "MX", f"10 {host}.")
            dns.add(host, "A", "127.0.0.1")
        with Postern(tmp_path / "p", resolver_nameservers=dns.address, smtp_tcp_port=str(sink.port),
                     smtp_tls_security_level="none", resolver_permit_networks="127.0.0.0/8",
                     provider_config_file=str(conf)) as p:
            for domain, most in ("d.test", 3), ("own.test", 2):
                for name in names(most, domain):
                    p.send("s@src.test", [name], BODY)
            sink.wait(5)
            p.wait_log(r"to=<.*@own.test>.*status=sent")
            p.stop()
            p.start()
            for domain, most in ("d.test", 3), ("own.test", 2):
                id = p.send("s@src.test", [f"late@{domain}"], BODY)
                p.wait_log(rf"to=<late@{domain}>.*status=deferred \(this cannot be sent there today: "
                           rf"{most} sent of {most} a day")
                text = p.ctl("shaping", "why", id)
                assert "what may go there today has been sent: for midnight UTC" in text
                text = p.ctl("shaping", "show", domain)
                assert f"recipients today  {most} of at most {most} (providers.conf); " in text, text
                assert "midnight UTC, in" in text
            assert len(sink.messages) == 5
            lines = [json.loads(x) for x in p.ctl("shaping", "list", "--json").splitlines()]
            assert {x["state_code"] for x in lines if "destination" in x} <= {"daily_cap"}
    dns.stop()
