"""Source addresses: pools, who sends from which, retries that keep their source, blocks that
switch it, addresses that are not ours, warm-up."""
import json
import os
import subprocess
from collections import Counter

import pytest

from dnsserver import DnsServer
from faults import Faults, available
from postern import BIN, Postern, wait_until
from qmgr_peers import DEFERRED, FAILED, RECIPIENT, TARGET
from sink import Sink
from test_qmgr_operator import Control
from test_qmgr_restart import place  # noqa: F401 (a fixture)
from test_shaping import MAIL, refusal, rules
from test_shaping_why import command

SOURCE = 3  # enum failure_scope
RULES = """
default { start_rate = "10000/s" start_connections = 100 connections = 200 }
provider big { mx = {".big.test"} }
rule blocked { code = '^5' text = 'blocked' stage = {"mail"} action = "switch" for = "2h"
  outcome = "retry" matches = {"550 5.7.1 blocked"} }
"""
TWO = """
source a { ipv4 = 127.0.0.11 helo = a.relay.test }
source b { ipv4 = 127.0.0.12 helo = b.relay.test }
source c { ipv4 = 127.0.0.13 ipv6 = "::13" }
pool default { sources = {a, b} overflow = spare }
pool spare { sources = {c} accounts = {acme} senders = {vip.test} }
"""
A, B, C = (bytes([127, 0, 0, n]) for n in (11, 12, 13))


def sources(c, text=TWO):
    before = c.q.count(r"sources.conf: \d+ sources")
    c.q.master.table("source_config_file", 0, "/etc/sources.conf", text)
    wait_until(lambda: c.q.count(r"sources.conf: \d+ sources") > before, 10, "the new sources")


@pytest.fixture
def c(request):
    c = Control(getattr(request, "param", None))
    rules(c, RULES)
    c.q.wait_log("providers.conf: 1 providers, 1 rules")
    sources(c)
    yield c
    c.stop()


def send(q, count, domain="d.test", first=True, **fields):
    """Commits so many messages and takes their jobs."""
    ids = []
    for i in range(count):
        ids.append(q.commit([f"r@{domain}"], **fields))
        if first and i == 0:
            q.resolved()
    jobs = [q.job() for _ in ids]
    return ids, jobs


def test_weights_and_names(c):
    sources(c, TWO.replace("helo = b.relay.test", "helo = b.relay.test weight = 3"))
    ids, jobs = send(c.q, 80)
    names = Counter((j.source, j.helo) for j in jobs)
    assert set(names) == {(A, b"a.relay.test"), (B, b"b.relay.test")}
    # three of four: with 80 messages 60 of b, give or take five standard deviations
    assert 40 <= names[(B, b"b.relay.test")] <= 78, (names, ids)


def test_pools_by_account_and_sender(c):
    q = c.q
    _, jobs = send(q, 3, account="acme/web")
    _, more = send(q, 3, first=False, sender="x@VIP.test")
    assert {j.source for j in jobs + more} == {C}
    assert {j.source6 for j in jobs + more} == {bytes(15) + b"\x13"}
    _, others = send(q, 3, first=False, account="other/web", sender="x@other.test")
    assert C not in {j.source for j in others}


def test_a_retry_keeps_its_source(c):
    """Greylisting wants the same address again."""
    q = c.q
    ids, jobs = send(q, 20)
    first = {}
    for job in jobs:
        first[job.id] = job.source
        q.result(job, outcomes=refusal(451, "4.7.1 greylisted, come again", 7), scope=RECIPIENT)
    for id in ids:
        q.wait_log(f"{id}: .*status=deferred")
        c.act("flush", id)
    again = {j.id: j.source for j in (q.job() for _ in ids)}
    assert again == first


def test_a_block_switches_for_that_destination_only(c):
    q = c.q
    ids, jobs = send(q, 20)
    victim = next(j for j in jobs if j.source == A)
    q.result(victim, outcomes=refusal(550, "5.7.1 blocked", MAIL, FAILED), scope=1)
    again = q.job()
    assert again.id == victim.id and again.source == B  # at once, from the other one
    q.result(again)
    q.wait_log(f"{again.id.decode()}: .*status=sent")
    _, later = send(q, 20, first=False)
    assert {j.source for j in later} == {B}
    _, elsewhere = send(q, 20, domain="e.test")
    assert {j.source for j in elsewhere} == {A, B}
    lane = [l for l in c.ask(request="shaping.show", destination="d.test") if l.get("source") == "127.0.0.11"]
    assert lane[0]["suspended"] and lane[0]["events"][-1]["rule"] == "blocked"


BLOCKS = RULES + """
rule briefly { code = '^5' text = 'for a moment' stage = {"mail"} action = "switch" for = "2s"
  outcome = "retry" matches = {"550 5.7.1 for a moment"} }
rule grey { code = '^451' text = 'come again' scope = "recipient" greylist = true retry_after = "1s"
  outcome = "retry" matches = {"451 4.7.1 come again"} }
"""


def blocks(c, count=3):
    rules(c, BLOCKS)
    c.q.wait_log(f"providers.conf: 1 providers, {count} rules")


def test_a_block_holds_though_an_older_delivery_succeeds(c):
    """What was under way when the source was blocked says nothing of the time since."""
    q = c.q
    blocks(c)
    ids, jobs = send(q, 30)
    older, victim, retried = [j for j in jobs if j.source == A][:3]
    q.result(retried, outcomes=refusal(451, "4.7.1 come again", 5), scope=RECIPIENT)
    q.wait_log(f"{retried.id.decode()}: .*status=deferred")
    q.result(victim, outcomes=refusal(550, "5.7.1 blocked", MAIL, FAILED), scope=1)
    assert q.job().id == victim.id
    q.result(older)
    q.wait_log(f"{older.id.decode()}: .*status=sent")
    again = q.job()  # its time has come, and its source is blocked
    assert (again.id, again.source) == (retried.id, B)


def test_of_blocked_sources_mail_waits_for_the_one_that_opens_first(c):
    q = c.q
    blocks(c)
    sources(c, TWO.replace(" overflow = spare", ""))
    _, jobs = send(q, 30)
    long, brief = (next(j for j in jobs if j.source == s) for s in (A, B))
    for job in jobs:
        if job not in (long, brief):
            q.result(job)
            q.wait_log(f"{job.id.decode()}: .*status=sent")
    q.result(long, outcomes=refusal(550, "5.7.1 blocked", MAIL, FAILED), scope=1)
    q.result(q.job())
    q.result(brief, outcomes=refusal(550, "5.7.1 for a moment", MAIL, FAILED), scope=1)
    q.wait_log("told to stay away: 2.0s, rule briefly")
    waiting = {brief.id} | {q.commit(["r@d.test"]).encode() for _ in range(8)}
    while waiting:
        job = q.job()  # B is open again after 2s, A after 2h
        assert job.source == B
        waiting.remove(job.id)
        q.result(job)


def test_new_mail_goes_from_a_source_that_is_let_in(c):
    """Not from one that is suspended there; where all are, each keeps its share."""
    q = c.q
    ids, jobs = send(q, 20)
    c.ask(request="shaping.act", action="suspend", destination="d.test", source="127.0.0.11", seconds=600)
    _, later = send(q, 20, first=False)
    assert {j.source for j in later} == {B}
    refused = next(j for j in jobs if j.source == A)
    q.result(refused, outcomes=refusal(451, "4.7.1 greylisted, come again", 7), scope=RECIPIENT)
    q.wait_log(f"{refused.id.decode()}: .*status=deferred")
    for job in jobs:
        if job is not refused:
            q.result(job)
            q.wait_log(f"{job.id.decode()}: .*status=sent")
    c.ask(request="shaping.act", action="resume", destination="d.test", source="127.0.0.11")
    c.act("flush", refused.id.decode())
    again = q.job()
    assert (again.id, again.source) == (refused.id, A)  # it keeps its source
    c.ask(request="shaping.act", action="suspend", destination="d.test", seconds=600)
    both = [q.commit(["r@d.test"]) for _ in range(20)]
    for id in both:
        q.wait_log(rf"{id}: .*status=deferred \(delivery temporarily suspended: by the operator")
    told = [c.ask(request="shaping.why", id=id)[0]["lane"]["source"] for id in both]
    assert set(told) == {"127.0.0.11", "127.0.0.12"}


def test_what_waits_at_a_blocked_source_goes_with_another(c):
    q = c.q
    ids, jobs = send(q, 40)
    here = [j for j in jobs if j.source == A]
    c.ask(request="shaping.act", action="set", destination="d.test", source="127.0.0.11", connections=1)
    waiting = [q.commit(["r@d.test"]) for _ in range(30)]
    got = []
    while (m := q.relay.receive(0.5)) is not None:
        assert m.source == B
        got.append(m)
    assert 0 < len(got) < len(waiting), "some wait for the first source"
    q.result(here[0], outcomes=refusal(550, "5.7.1 blocked", MAIL, FAILED), scope=1)
    left = [q.job() for _ in range(len(waiting) - len(got) + 1)]
    assert {j.source for j in left} == {B}
    assert {j.id.decode() for j in got + left} == set(waiting) | {here[0].id.decode()}


def test_an_address_that_is_not_ours_is_told_and_others_go_on(c):
    q = c.q
    ids, jobs = send(q, 20)
    victim = next(j for j in jobs if j.source == A)
    q.result(victim, scope=SOURCE,
             outcomes=refusal(0, "127.0.0.11 is not an address of this machine", 1, local=1))
    q.wait_log(r"error: source a \(/etc/sources.conf:2\): 127.0.0.11 is not an address of this machine")
    assert q.job().source == B
    _, later = send(q, 8, first=False)
    assert {j.source for j in later} == {B}


def test_when_no_source_may_send_mail_waits_with_the_reason(c):
    q = c.q
    sources(c, "source only { ipv4 = 127.0.0.11 }")
    _, jobs = send(q, 1)
    q.result(jobs[0], scope=SOURCE,
             outcomes=refusal(0, "127.0.0.11 is not an address of this machine", 1, local=1))
    q.wait_log(rf"{jobs[0].id.decode()}: .*status=deferred \(no source address may send this now: "
               r"source only: not an address of this machine\)")
    assert q.relay.receive(0.3) is None


def test_warm_up_by_provider_overflows_and_then_waits(c):
    q = c.q
    sources(c, """
source cold { ipv4 = 127.0.0.11 provider big { warmup = "table:3,1000" } }
source warm { ipv4 = 127.0.0.12 provider big { daily_cap = 4 } }
pool default { sources = {cold} overflow = spare }
pool spare { sources = {warm} }
""")
    q.commit(["r@big.example"])
    q.resolved(site="mx.big.test", targets=[dict(host="mx.big.test", address=b"\x7f\x05\x05\x05",
                                                 port=25, preference=10)])
    jobs = [q.job()] + send(q, 6, domain="big.example", first=False)[1]
    assert Counter(j.source for j in jobs) == {A: 3, B: 4}
    id = q.commit(["r@big.example"])
    q.wait_log(rf"{id}: .*status=deferred \(no source address .* it has sent what it may today: .* a day "
               r"\(sources.conf\)\)")
    _, others = send(q, 5, domain="d.test")
    assert {j.source for j in others} == {A}
    # what was refused has not been sent: there is room again
    q.result(jobs[0], outcomes=refusal(550, "5.1.1 no such user", 7, FAILED))
    q.noticed()
    c.act("flush", id)
    assert any(q.job().id.decode() == id for _ in range(2))  # the notice goes, too


def test_what_holds_for_a_cold_source_only(c):
    """Bounds while the address warms up at that provider, and no longer."""
    text = RULES.replace('mx = {".big.test"} }', 'mx = {".big.test"} cold_message_rate = "1/h" cold_daily_cap = 7 }')
    rules(c, text)
    wait_until(lambda: c.q.count("providers.conf: 1 providers") == 2, 10, "the rules")
    sources(c, """
source cold { ipv4 = 127.0.0.11 provider big { warmup = "table:100,1000" } }
source old { ipv4 = 127.0.0.12 }
pool default { sources = {cold} }
pool old { sources = {old} senders = {old.test} }
""")
    c.q.commit(["a@d.test"])
    c.q.resolved(site=b"mx1.big.test", targets=[dict(TARGET, host="mx1.big.test")])
    c.q.result(c.q.job())
    c.q.commit(["a@d.test"])
    for _ in range(2):
        c.q.commit(["a@d.test"], sender="x@old.test")
        job = c.q.job()
        assert job.source == B
        c.q.result(job)
    lanes = {lane["source"]: lane for lane in c.ask(request="shaping.show", destination="big")[:-1]}
    cold, old = lanes["127.0.0.11"], lanes["127.0.0.12"]
    assert (cold["state_code"], cold["configured"]["daily_cap"]) == ("rate", 7)
    assert cold["configured"]["message_rate"] < 0.001 and "daily_cap" not in old["configured"]
    # the same address, warm now
    sources(c, """
source cold { ipv4 = 127.0.0.11 }
source old { ipv4 = 127.0.0.12 }
pool default { sources = {cold} }
pool old { sources = {old} senders = {old.test} }
""")
    rules(c, text + " ")
    job = c.q.job()
    assert job.source == A
    c.q.result(job)


def test_reload_takes_a_source_away(c):
    q = c.q
    _, jobs = send(q, 20)
    assert {j.source for j in jobs} == {A, B}
    sources(c, "source b { ipv4 = 127.0.0.12 }")
    _, later = send(q, 20, first=False)
    assert {j.source for j in later} == {B}
    for job in jobs:
        q.result(job)
    c.q.master.table("source_config_file", 0, "/etc/sources.conf", "source x { }")
    q.wait_log("the sources stay as they are: /etc/sources.conf:1: source x: has no address")
    _, later = send(q, 3, first=False)
    assert {j.source for j in later} == {B}


# ---- the whole relay -------------------------------------------------------------------------


class PeerSink(Sink):
    """Notes from which address, and with which name, each recipient came."""

    def __init__(self):
        super().__init__()
        self.came = []

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        with self.lock:
            self.came.append((session.peer[0], session.host_name))
        return await super().handle_RCPT(server, session, envelope, address, rcpt_options)


def test_sessions_are_bound_and_a_foreign_address_is_left_out(tmp_path):
    """F28-like trouble on our own side: one source cannot be bound, mail goes on."""
    conf = tmp_path / "sources.conf"
    conf.write_text("source a { ipv4 = 127.0.0.11 helo = a.relay.test }\n"
                    "source b { ipv4 = 127.0.0.12 }\n"
                    "source far { ipv4 = 192.0.2.77 }\n")
    with PeerSink() as sink, Postern(tmp_path / "p", relayhost=f"[127.0.0.1]:{sink.port}",
                                     source_config_file=str(conf)) as p:
        for i in range(30):
            p.send("s@src.test", [f"r{i}@d.test"], b"Subject: x\r\n\r\nx\r\n")
        sink.wait(30)
        assert set(sink.came) == {("127.0.0.11", "a.relay.test"), ("127.0.0.12", "relay.test")}
        wait_until(lambda: p._read("events.json").count('"delivered"') == 30)
        assert {e["source"] for e in p.events() if e["event"] == "delivered"} == {
            "127.0.0.11", "127.0.0.12"}
        p.wait_log(rf"source far \({conf}:3\): 192.0.2.77 is not an address of this machine")


def test_master_refuses_a_bad_file_with_its_line(tmp_path):
    conf = tmp_path / "sources.conf"
    conf.write_text("source a {\n ipv4 = 127.0.0.11\n wieght = 3\n}\n")
    p = Postern(str(tmp_path / "relay"), start=False, source_config_file=str(conf))
    done = subprocess.run([os.path.join(BIN, "master"), "-t", "-c", p.directory], check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode != 0 and f"{conf}:3: no such option 'wieght'" in done.stdout


# ---- what is known of sources ------------------------------------------------------------------


def listed(p, *args):
    return [json.loads(l) for l in p.ctl("source", *args, "--json").splitlines()]


def test_volume_reputation_and_suspension_over_a_restart(tmp_path):
    """Counts, warm-up and what was suspended by hand are known again."""
    conf = tmp_path / "sources.conf"
    conf.write_text("source a { ipv4 = 127.0.0.11 warmup = \"table:5,100000\" }\n"
                    "source b { ipv4 = 127.0.0.12 }\n"
                    "pool default { sources = {a} overflow = warm }\npool warm { sources = {b} }\n")
    with PeerSink() as sink, Postern(tmp_path / "p", relayhost=f"[127.0.0.1]:{sink.port}",
                                     source_config_file=str(conf)) as p:
        sink.replies = {"no@d.test": "550 5.1.1 no such user"}
        for i in range(8):
            p.send("s@src.test", [f"r{i}@d.test"], b"Subject: x\r\n\r\nx\r\n")
        sink.wait(8)
        p.send("s@src.test", ["no@d.test"], b"Subject: x\r\n\r\nx\r\n")
        p.wait_log(r"to=<no@d.test>.*status=bounced")
        by_name = {s["source"]: s for s in listed(p, "list")}
        assert by_name["a"]["days7"]["accepted"] == 5 and not by_name["a"]["warm"]
        assert by_name["b"]["days7"]["accepted"] + by_name["b"]["days7"]["rejected"] >= 4
        assert sum(s["days7"]["rejected"] for s in by_name.values()) == 1
        p.ctl("source", "suspend", "b", "--for", "1h", "--reason", "a test")
        p.stop()
        p.start()
        by_name = {s["source"]: s for s in listed(p, "list")}
        assert by_name["a"]["days7"]["accepted"] == 5
        assert by_name["b"]["state"] == "suspended by hand: a test"
        assert 3000 < by_name["b"]["suspended_for"] <= 3600
        rows = listed(p, "show", "a")
        others = next(r for r in rows if r.get("provider"))
        assert (others["allowed_today"], others["left_today"], others["warmup_day"]) == (5, 0, 1)
        assert any(r.get("sender") == "@src.test" and r["recipients"] >= 5 for r in rows)
        # nobody may send now, and the operator reads why
        p.send("s@src.test", ["late@d.test"], b"Subject: x\r\n\r\nx\r\n")
        p.wait_log(r"to=<late@d.test>.*no source address may send this now: source")
        assert "suspended by hand" in p.ctl("source", "list")
        p.ctl("source", "resume", "b")
        p.ctl("queue", "flush")
        p.wait_log(r"to=<late@d.test>.*status=sent")
        text = p.ctl("source", "show", "b") + p.ctl("source", "pools")
        assert "@src.test" in text and "127.0.0.12" in text and "overflow" in text
        pools = {r["pool"]: r for r in listed(p, "pools")}
        assert pools["default"]["overflow"] == "warm" and "warmed up" in pools["default"]["advice"]


def test_a_damaged_state_file_is_kept_aside(tmp_path):
    conf = tmp_path / "sources.conf"
    conf.write_text("source a { ipv4 = 127.0.0.11 }\n")
    with PeerSink() as sink, Postern(tmp_path / "p", relayhost=f"[127.0.0.1]:{sink.port}",
                                     source_config_file=str(conf)) as p:
        p.send("s@src.test", ["r@d.test"], b"Subject: x\r\n\r\nx\r\n")
        p.wait_log(r"to=<r@d.test>.*status=sent")
        p.stop()
        path = p.path("spool", "sources.state")
        with open(path, "r+b") as f:
            f.seek(10)
            f.write(b"\xff")
        p.start()
        p.wait_log(r"counted anew.*: sources.state is damaged, kept as sources.state.damaged")
        assert os.path.exists(path + ".damaged")
        assert listed(p, "list")[0]["days7"]["accepted"] == 0


# ---- block lists ---------------------------------------------------------------------------------


def test_a_listed_source_is_left_told_of_and_taken_back(tmp_path):
    """Looked up in a real DNS server; the alert is mailed with who sent from it."""
    dns = DnsServer()
    dns.negative_ttl = 1
    conf = tmp_path / "sources.conf"
    conf.write_text("source a { ipv4 = 127.0.0.11 }\nsource b { ipv4 = 127.0.0.12 }\n"
                    "pool default { sources = {a} overflow = other }\npool other { sources = {b} }\n"
                    "dnsbl bl.test { }\ndnsbl soft.test { quarantine = no }\ndnsbl open.test { }\n"
                    "dnsbl_interval = 10s\nalert_address = admin@relay.test\n")
    for zone in ("bl.test", "soft.test"):
        dns.add(f"2.0.0.127.{zone}", "A", "127.0.0.2")  # RFC 5782: that it works
    dns.add("2.0.0.127.open.test", "A", "127.255.255.254")
    # soft lists b; open answers that it does not talk to this resolver
    dns.add("12.0.0.127.soft.test", "A", "127.0.0.2")
    for n in (11, 12):
        dns.add(f"{n}.0.0.127.open.test", "A", "127.255.255.254")
    try:
        with PeerSink() as sink, Postern(tmp_path / "p", relayhost=f"[127.0.0.1]:{sink.port}",
                                         resolver_nameservers=dns.address,
                                         source_config_file=str(conf)) as p:
            p.wait_log("the block list open.test does not answer our name servers")
            p.wait_log("source b .127.0.0.12. is on the block list soft.test")
            for i in range(3):
                p.send("s@guilty.test", [f"r{i}@d.test"], b"Subject: x\r\n\r\nx\r\n")
            wait_until(lambda: sum(r[0] == "127.0.0.11" for r in sink.came) >= 3, 10, "mail from a")
            dns.add("11.0.0.127.bl.test", "A", "127.0.0.4", ttl=1)
            dns.add("11.0.0.127.bl.test", "TXT", '"spam seen, see https://bl.test/?ip=127.0.0.11"', ttl=1)
            p.wait_log(r"source a \(127.0.0.11\) is on the block list bl.test: spam seen.*"
                       r"lately: @guilty.test 100%; it is not used", 30)
            p.send("s@src.test", ["after@d.test"], b"Subject: x\r\n\r\nx\r\n")
            p.wait_log(r"to=<after@d.test>.*status=sent")
            alerts = wait_until(lambda: [m for m in sink.messages if b"bl.test" in m.content and
                                         m.recipients == ["admin@relay.test"] and
                                         b"spam seen" in m.content], 20, "the alert")
            assert b"@guilty.test 100%" in alerts[0].content and alerts[0].sender == "<>"
            assert {s["source"]: s["usable"] for s in listed(p, "list")} == {"a": False, "b": True}
            p.stop()
            p.start()  # it is known at once, before any list was asked again
            a = next(s for s in listed(p, "list") if s["source"] == "a")
            assert not a["usable"] and a["listed"] == "bl.test"
            dns.remove("11.0.0.127.bl.test")
            p.wait_log("source a is off the block list bl.test", 30)
            assert all(s["usable"] for s in listed(p, "list"))
            p.send("s@src.test", ["back@d.test"], b"Subject: x\r\n\r\nx\r\n")
            p.wait_log(r"to=<back@d.test>.*status=sent")
            # of a, whether the alerts went from a or b
            assert next(s for s in listed(p, "list") if s["source"] == "a")["today"]["accepted"] >= 4
    finally:
        dns.stop()


def test_a_block_list_alone_stops_no_mail(tmp_path):
    """One that lists everything, refuses us or is gone is not believed; where all sources of a pool
    are listed they are used all the same; what the operator resumes is used."""
    dns = DnsServer()
    dns.negative_ttl = 1
    conf = tmp_path / "sources.conf"
    conf.write_text("source a { ipv4 = 127.0.0.11 }\nsource b { ipv4 = 127.0.0.12 }\n"
                    "pool default { sources = {a, b} }\npool one { sources = {a} senders = {one.test} }\n"
                    "dnsbl bl.test { }\ndnsbl all.test { }\ndnsbl gone.test { }\n"
                    "dnsbl_interval = 10s\n")
    for n in (1, 2, 11, 12):
        dns.add(f"{n}.0.0.127.all.test", "A", "127.0.0.2")
        dns.add(f"{n}.0.0.127.gone.test", "A", "192.0.2.80")
    dns.add("2.0.0.127.bl.test", "A", "127.0.0.2", ttl=1)
    dns.add("11.0.0.127.bl.test", "A", "127.0.0.2", ttl=1)
    states = lambda: {s["source"]: (s["usable"], s["state"]) for s in listed(p, "list")}
    try:
        with PeerSink() as sink, Postern(tmp_path / "p", relayhost=f"[127.0.0.1]:{sink.port}",
                                         resolver_nameservers=dns.address,
                                         source_config_file=str(conf)) as p:
            p.wait_log(r"block list all.test is not believed: it lists 127.0.0.1, which no list has")
            p.wait_log(r"block list gone.test is not believed: .*an address outside of 127.0.0.0/8")
            p.wait_log(r"source a .*is on the block list bl.test: .*it is used all the same: the "
                       r"pool one has no other source")
            for i in range(8):  # the other pool has one that is not listed
                p.send("s@src.test", [f"r{i}@d.test"], b"Subject: x\r\n\r\nx\r\n")
            sink.wait(8)
            assert {r[0] for r in sink.came} == {"127.0.0.12"}
            p.send("s@one.test", ["one@d.test"], b"Subject: x\r\n\r\nx\r\n")
            sink.wait(9)
            assert sink.came[-1][0] == "127.0.0.11" and states()["a"][0] and states()["b"] == (True, "in use")
            assert "1 on block lists" in p.ctl("status")
            dns.add("12.0.0.127.bl.test", "A", "127.0.0.2", ttl=1)
            p.wait_log(r"source b .*is on the block list bl.test: .*the pool default has no other", 30)
            p.send("s@src.test", ["both@d.test"], b"Subject: x\r\n\r\nx\r\n")
            p.wait_log("to=<both@d.test>.*status=sent")
            p.ctl("source", "resume", "b")
            assert states()["b"] == (True, "in use")
            p.stop()
            p.start()
            assert states()["b"] == (True, "in use")  # until it is off the list, or on another
            dns.remove("2.0.0.127.bl.test")  # for one round it is not believed
            p.wait_log(r"block list bl.test is not believed: .*these holds no more: a, b$", 30)
            dns.add("2.0.0.127.bl.test", "A", "127.0.0.2", ttl=1)
            wait_until(lambda: "on the block list" in states()["a"][1], 30, "the list is believed again")
            assert states()["b"] == (True, "in use")
            dns.remove("12.0.0.127.bl.test")
            p.wait_log("source b is off the block list bl.test", 30)
            dns.remove("2.0.0.127.bl.test")
            p.wait_log(r"block list bl.test is not believed: it does not list its test point 127.0.0.2.*"
                       r"what it said of these holds no more: a$", 30)
            assert states() == {"a": (True, "in use"), "b": (True, "in use")}
            assert "block lists" not in p.ctl("status")
    finally:
        dns.stop()


def test_mail_that_no_source_might_send_goes_when_one_may_again(c):
    q = c.q
    sources(c, TWO.replace(" overflow = spare", ""))
    for name in "ab":
        c.ask(request="source.act", source=name, action="suspend", reason="x")
    ids = {q.commit(["r@d.test"]) for _ in range(4)}
    q.resolved()
    for id in ids:
        q.wait_log(f"{id}: .*no source address may send this now")
    c.ask(request="source.act", source="b", action="resume")
    jobs = [q.job() for _ in ids]
    assert {j.source for j in jobs} == {B} and {j.id.decode() for j in jobs} == ids


@pytest.mark.parametrize("c", [{"qmgr_message_active_limit": "10"}], indirect=True)
def test_mail_that_is_not_in_memory_goes_too_when_a_source_may_send_it_again(c):
    q = c.q
    for name in "abc":
        c.ask(request="source.act", source=name, action="suspend", reason="x")
    ids = [q.commit(["r@d.test"])]
    q.resolved()
    for _ in range(39):
        q.wait_log(f"{ids[-1]}: .*no source address may send this now")
        ids.append(q.commit(["r@d.test"]))
    q.wait_log(f"{ids[-1]}: .*no source address may send this now")
    c.ask(request="source.act", source="b", action="resume")
    left = set(ids)
    while left:
        job = q.job()
        left.remove(job.id.decode())
        q.result(job)


def test_a_retry_keeps_the_source_of_an_overflow_pool(c):
    """Greylisting wants the same address again, also if those of the own pool are free by then."""
    q = c.q
    blocks(c)
    for name in "ab":
        c.ask(request="source.act", source=name, action="suspend", reason="x")
    _, jobs = send(q, 1)
    assert jobs[0].source == C
    q.result(jobs[0], outcomes=refusal(451, "4.7.1 come again", 5), scope=RECIPIENT)
    q.wait_log(f"{jobs[0].id.decode()}: .*status=deferred")
    for name in "ab":
        c.ask(request="source.act", source=name, action="resume")
    again = q.job()
    assert (again.id, again.source) == (jobs[0].id, C)


@pytest.mark.parametrize("overflow", [True, False])
def test_a_message_to_many_is_split_at_what_is_left_of_the_day(c, overflow):
    q = c.q
    sources(c, 'source a { ipv4 = 127.0.0.11 warmup = "table:5,100000" }\n'
               'source b { ipv4 = 127.0.0.12 }\n'
               f'pool default {{ sources = {{a}} {"overflow = warm" if overflow else ""} }}\n'
               'pool warm { sources = {b} }\n')
    all = [f"r{i:02}@d.test" for i in range(12)]
    id = q.commit(all)
    q.resolved()
    jobs = [q.job() for _ in range(2 if overflow else 1)]
    parts = [(j.source, [r.address.decode() for r in j.recipients]) for j in jobs]
    assert parts == [(A, all[:5]), (B, all[5:])][:len(jobs)]
    for job in jobs:
        q.result(job)
    if overflow:
        q.wait_log(f"{id}: removed")
    else:
        for address in all[5:]:
            q.wait_log(rf"{id}: to=<{address}>.*status=deferred .*source a: it has sent what it may today")


@pytest.mark.skipif(not available(), reason="needs a build with -DPOSTERN_FAULTS=ON")
def test_F31_a_suspension_by_hand_is_no_longer_than_was_said(place):
    """The clock is set back while it lasts, and again while qmgr is stopped."""
    faults = Faults(place)
    os.chmod(faults.path, 0o666)

    def start():
        control = Control(environment=faults.environment, directory=place)
        sources(control)
        return control

    def left(control):
        [s] = [x for x in control.ask(request="source.list")[:-1] if x["source"] == "a"]
        assert s["state"] == "suspended by hand: a test"
        return s["suspended_for"]

    c = start()
    c.ask(request="source.act", source="a", action="suspend", seconds=3600, reason="a test")
    faults.shift("wall", -86400)
    assert 3500 < left(c) <= 3600
    c.stop()
    faults.clear()
    faults.shift("wall", -2 * 86400)
    c = start()
    assert 3500 < left(c) <= 3600
    c.stop()
    faults.clear()


def test_both_addresses_of_a_source_are_known(c):
    """What providers.conf says of either holds (the stricter); either finds it, and both are told."""
    q = c.q
    rules(c, RULES.replace("connections = 200 }", """connections = 200
  source "127.0.0.13" { messages_per_connection = 9 connections = 50 }
  source "0:0::13" { messages_per_connection = 4 message_rate = "7/s" daily_cap = 30 } }"""))
    wait_until(lambda: q.count("providers.conf: 1 providers") == 2, 10, "the rules")
    id = q.commit(["r@d.test"], account="acme/web")
    q.resolved()
    job = q.job()
    assert (job.source, job.source6) == (C, bytes(15) + b"\x13")
    for name in "127.0.0.13", "::13", "c":
        [lane] = [x for x in c.ask(request="shaping.show", destination="d.test", source=name)
                  if "destination" in x]
        assert (lane["source"], lane["source6"], lane["source_name"]) == ("127.0.0.13", "::13", "c")
    given = lane["configured"]
    assert (given["messages_per_connection"], given["connections"]) == (4, 50)
    assert (given["message_rate"], lane["allowed_today"]) == (7, 30)
    for name in "127.0.0.13", "::13":
        found = c.ask(request="queue.list", select=dict(source=name))
        assert [x["id"] for x in found if "id" in x] == [id], found
    assert "from 127.0.0.13 and ::13" in command(c, "shaping", "show", "d.test")


# ---- fairness --------------------------------------------------------------------------------------


def test_who_made_up_a_refused_window_waits_for_others(c):
    """One sender has had seven of eight deliveries when the destination says slow down: the
    others' next messages go before its own, which have waited longer."""
    q = c.q
    rules(c, RULES.replace("start_connections = 100", "start_connections = 8").replace(
        "provider big", """rule slow { code = '^4' text = 'slow down' dimension = "concurrency"
  action = "slow" factor = 0.5 outcome = "retry" matches = {"421 slow down"} }
provider big"""))
    c.q.wait_log("1 providers, 2 rules")
    sources(c, "source a { ipv4 = 127.0.0.11 }")
    many = [q.commit(["r@d.test"], sender="news@bulk.test") for _ in range(7)]
    q.resolved()
    under_way = [q.job() for _ in many]
    q.commit(["r@d.test"], sender="one@small.test")
    under_way.append(q.job())
    many += [q.commit(["r@d.test"], sender="news@bulk.test") for _ in range(10)]
    late = [q.commit(["r@d.test"], sender=f"hello@other{i % 2}.test") for i in range(4)]
    q.result(under_way[0], outcomes=refusal(421, "slow down", MAIL), scope=2)
    for job in under_way[1:]:
        q.result(job)
    order = [q.job().id.decode() for _ in range(2)]
    assert set(order) <= set(late), (order, late, many)


def test_a_bound_of_one_source_is_told_with_its_line(c):
    """What is set by hand beyond it does not hold; of two addresses the stricter one's does."""
    rules(c, 'provider big { domains = {"d.test"} connections = 9\n'
             '  source "127.0.0.11" { connections = 8 messages_per_connection = 6 }\n'
             '  source "::13" { connections = 7 } }\n')
    sources(c, TWO)
    send(c.q, 1, account="acme")
    done = command(c, "shaping", "set", "d.test", "--connections", "50", "--messages", "60")
    assert ("  connections: 7 holds, not 50, because of a.conf:1: provider big source ::13: "
            "connections = 7\n") in done and "messages:" not in done, done
    sources(c, "source a { ipv4 = 127.0.0.11 }\n")
    send(c.q, 1, first=False)
    done = command(c, "shaping", "set", "d.test", "--messages", "60", "--source", "127.0.0.11")
    assert ("  messages: 6 holds, not 60, because of a.conf:1: provider big source 127.0.0.11: "
            "messages_per_connection = 6\n") in done, done


def test_sources_in_several_pools_are_told(c):
    sources(c, TWO + "pool one { sources = {a, b} }\npool two { sources = {b} }\n")
    pools = {x["pool"]: x["shared_sources"] for x in c.ask(request="source.pools") if "pool" in x}
    assert pools == {"default": 2, "one": 2, "two": 1, "spare": 0}
    out = command(c, "source", "pools")
    assert "today by its sources" in out and "on their busiest day" in out
    assert "A source that is in several pools counts in each of them with all that it sent" in out
    sources(c, "source a { ipv4 = 127.0.0.11 }\n")
    assert "several pools" not in command(c, "source", "pools")
