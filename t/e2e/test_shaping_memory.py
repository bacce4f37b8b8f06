"""What was learned about destinations: kept over restarts, with age; exported, imported;
and what other rules would have made of the replies that there were."""
import gzip
import json
import lzma
import os
import shutil
import socket
import subprocess
import tempfile
import time

import pytest

from postern import BIN, Postern, wait_until
from qmgr_peers import FAILED, SENT, TARGET, Qmgr
from test_qmgr_operator import Ahead, Control
from test_shaping import DOT, MAIL, RCPT, RULES, refusal, rules
from test_sources import A, B, RULES as SWITCH, TWO, sources

FILE = "shaping.learned"


class Again(Control):
    """qmgr with its control socket, in a place that stays."""

    def __init__(self, place):  # pylint: disable=super-init-not-called
        self.path = os.path.join(place, "control")
        if os.path.exists(self.path):
            os.unlink(self.path)
        ahead = Ahead(place)
        self.q = Qmgr(directory=place, listen=[self.path], environment=ahead.faults.environment)
        self.go_ahead(ahead)

    def file(self):
        return os.path.join(self.q.directory, "spool", FILE)

    def end(self):
        """Stops qmgr as master does, and waits until it has ended."""
        self.q.smtpd.close()  # else what is on its way in would be waited for
        self.q.master.stop()


@pytest.fixture
def place():
    d = tempfile.mkdtemp(prefix="postern-")
    os.chmod(d, 0o755)
    yield d
    shutil.rmtree(d, ignore_errors=True)


def start(place):
    c = Again(place)
    rules(c)
    c.q.wait_log("providers.conf: 0 providers, 2 rules")
    return c


def learn(c):
    """Its rate is refused, so there is something to remember."""
    q = c.q
    q.commit(["a@d.test"])
    q.resolved()
    q.result(q.job(), outcomes=refusal(421, "4.7.0 slow down", MAIL), scope=2)
    q.wait_log("rate cut")
    q.result(q.job())
    return c.ask(request="shaping.show", destination="d.test")[0]


def contact(c):
    c.q.commit(["b@d.test"])
    c.q.resolved()
    c.q.result(c.q.job())
    return c.ask(request="shaping.show", destination="d.test")[0]


def test_limits_are_known_again_after_a_restart(place):
    c = start(place)
    before = learn(c)
    c.end()
    c = start(place)
    c.q.wait_log("what was learned about 1 destinations is known again")
    after = contact(c)
    assert abs(after["rate"] - before["rate"]) < 1 and after["learned"]["rate_failed"] == 100
    c.end()


def test_the_file_is_written_while_qmgr_runs_and_survives_its_death(place):
    c = start(place)
    learn(c)
    c.end()
    c = start(place)
    c.q.kill()  # F11: what was saved last is there
    c = start(place)
    assert contact(c)["learned"]["rate_failed"] == 100
    c.end()


def test_a_suspension_by_hand_outlives_qmgr(place):
    c = start(place)
    learn(c)
    c.ask(request="shaping.act", action="suspend", destination="d.test", seconds=3600, reason="x")
    c.end()
    c = start(place)
    id = c.q.commit(["b@d.test"])
    c.q.resolved()
    c.q.wait_log(rf"{id}: .*delivery temporarily suspended: by the operator")
    lane = c.ask(request="shaping.show", destination="d.test")[0]
    assert lane["state"] == "suspended by hand" and 3500 < lane["suspended_for"] <= 3600
    c.end()


def start_with_sources(place):
    c = Again(place)
    rules(c, SWITCH)
    c.q.wait_log("providers.conf: 1 providers, 1 rules")
    sources(c)
    return c


def test_a_blocked_source_is_known_after_a_restart(place):
    """Mail goes from the other one at once, and the operator reads who blocked it."""
    c = start_with_sources(place)
    ids = [c.q.commit(["r@d.test"]) for _ in range(20)]
    c.q.resolved()
    jobs = [c.q.job() for _ in ids]
    victim = next(j for j in jobs if j.source == A)
    c.q.result(victim, outcomes=refusal(550, "5.7.1 blocked", MAIL, FAILED), scope=1)
    for job in [j for j in jobs if j is not victim] + [c.q.job()]:
        c.q.result(job)
        c.q.wait_log(f"{job.id.decode()}: .*status=sent")
    c.end()
    c = start_with_sources(place)
    later = {c.q.commit(["r@d.test"]).encode() for _ in range(20)}
    c.q.resolved()
    while later:
        job = c.q.job()
        assert job.source == B
        later.remove(job.id)
        c.q.result(job)
    lane = next(l for l in c.ask(request="shaping.show", destination="d.test")
                if l.get("source") == "127.0.0.11")
    assert lane["blocked"] and 7000 < lane["suspended_for"] <= 7200
    assert lane["rule"] == "blocked" and lane["where"].startswith("a.conf:")
    assert "5.7.1 blocked" in lane["last_refusal"] and lane["events"][-1]["rule"] == "blocked"
    c.end()


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "other"])
def test_a_damaged_file_is_kept_aside(place, damage):
    c = start(place)
    learn(c)
    c.end()
    with open(c.file(), "rb") as f:
        text = bytearray(f.read())
    if damage == "bit":
        text[len(text) // 2] ^= 1
    else:
        text = {"cut": text[:-10], "empty": b"", "other": b"hello\n"}[damage]
    with open(c.file(), "wb") as f:
        f.write(text)
    c = start(place)
    c.q.wait_log(f"everything is learned anew: {FILE} is damaged, kept as {FILE}.damaged")
    with open(c.file() + ".damaged", "rb") as f:
        assert f.read() == bytes(text)
    assert contact(c)["rate"] == 100
    c.end()


def entry(name="mx.d.test", **more):
    return {"key": "nobody has this", "name": name, "source": "", "when": time.time(), "rate": 1000,
            "rate_failed": 2000, **more}


def imported(c, *entries):
    return c.ask(request="shaping.import", learned=list(entries))[-1]


def test_F31_a_clock_set_back_does_not_prolong_a_suspension(place):
    """What was written while the clock was a year ahead holds for as long as it was meant to."""
    c = start(place)
    ahead = time.time() + 365 * 86400
    imported(c, entry(when=ahead, suspended_until=ahead + 600, by_hand=True, reason="x"))
    id = c.q.commit(["b@d.test"])
    c.q.resolved()
    c.q.wait_log(rf"{id}: .*delivery temporarily suspended: by the operator")
    lane = c.ask(request="shaping.show", destination="d.test")[0]
    assert 590 < lane["suspended_for"] <= 600
    c.end()


def test_import_export_and_age(place):
    """By name, where the addresses have changed; what is old counts for less; what is very
    old, or of the future, for nothing."""
    c = start(place)
    assert imported(c, entry(when=time.time() - 86400))["taken"] == 1
    lane = contact(c)
    assert 540 < lane["rate"] < 560  # 100 to start with, and half of the 900 above it
    exported = c.ask(request="shaping.export")[:-1]
    assert [e["learned"]["name"] for e in exported] == ["mx.d.test"]
    assert imported(c, exported[0]["learned"] | {"rate": 7})["taken"] == 1
    assert c.ask(request="shaping.show", destination="d.test")[0]["rate"] == 7
    for when in (time.time() - 31 * 86400, time.time() + 10 * 366 * 86400):
        c.ask(request="shaping.act", action="reset", destination="d.test")
        imported(c, entry(key=exported[0]["learned"]["key"], when=when))
        assert c.ask(request="shaping.show", destination="d.test")[0]["rate"] == 100
    assert "Entry 2 cannot be used" in imported(c, entry(), entry(rate=-1))["error"]
    assert "Give \"learned\"" in c.ask(request="shaping.import")[-1]["error"]
    c.end()


def test_an_import_leaves_what_is_newer_and_no_suspension_is_for_ever(place):
    c = start(place)
    learn(c)
    [mine] = [line["learned"] for line in c.ask(request="shaping.export")[:-1]]
    c.ask(request="shaping.act", action="set", destination="d.test", rate=3)
    old = mine | {"rate": 50, "rate_failed": 60, "when": time.time() - 20 * 86400}
    done = imported(c, old, entry("other.test", key="k"))
    assert (done["taken"], done["older"]) == (1, 1)
    assert c.ask(request="shaping.show", destination="d.test")[0]["rate"] == 3
    c.ask(request="shaping.act", action="reset", destination="d.test")
    imported(c, old | {"when": time.time(), "suspended_until": time.time() + 9 * 366 * 86400})
    assert c.ask(request="shaping.show", destination="d.test")[0]["suspended_for"] <= 30 * 86400
    c.end()


def test_what_the_operator_sets_survives_a_kill_within_seconds(place):
    c = start(place)
    contact(c)
    c.ask(request="shaping.act", action="set", destination="d.test", rate=3)
    c.q.ahead.move(10)
    wait_until(lambda: os.path.exists(c.file()), 30, "the file is written")
    c.q.kill()
    c = start(place)
    assert contact(c)["rate"] == 3
    c.end()


@pytest.mark.parametrize("damage", ["long", "directory"])
def test_a_file_that_cannot_be_read_is_kept_aside(place, damage):
    c = start(place)
    learn(c)
    c.end()
    os.unlink(c.file())
    if damage == "directory":
        os.mkdir(c.file())
    else:
        with open(c.file(), "wb") as f:
            f.truncate((512 << 20) + 1)  # no room of the disk is used
    c = start(place)
    c.q.wait_log(f"everything is learned anew: .*{FILE}.*, kept as {FILE}.damaged")
    assert os.path.exists(c.file() + ".damaged") and contact(c)["rate"] == 100
    c.end()
    assert os.path.isfile(c.file()) and os.path.getsize(c.file()) < 100000


def test_many_are_exported_whole(place):
    c = start(place)
    for at in range(0, 1000, 50):
        assert imported(c, *[entry(name=f"mx{n}.test", key=f"k{n}") for n in range(at, at + 50)])["taken"] == 50
    exported = c.ask(request="shaping.export")[:-1]
    assert sorted(e["learned"]["key"] for e in exported) == sorted(f"k{n}" for n in range(1000))
    c.end()
    c = start(place)
    c.q.wait_log("what was learned about 1000 destinations is known again")
    c.end()


OTHER = RULES.replace("'slow down'", "'slow (down|up)'") + """
rule away { text = 'go away' action = "suspend" for = "5m" matches = {"421 go away"} }
"""


def event(text, code=421, name="deferred", **more):
    return json.dumps({"time": 1, "event": name, "id": "4XyzAbCdeFz0001", "to": "a@d.test", "mx": "mx.d.test",
                       "code": code, "status": "4.7.0", "local": False, "stage": "mail", "text": text} | more)


def test_replay_tells_what_other_rules_would_have_done(tmp_path):
    (tmp_path / "in-use.conf").write_text(RULES)
    (tmp_path / "other.conf").write_text(OTHER)
    (tmp_path / "events.json").write_text("\n".join(
        [event("slow down")] * 3 + [event("slow up \x1b[2J")] * 2 + [event("go away")]
        + [event("lost: go away", local=True), event("ok", 250, "delivered"), "\"code\" no json"]) + "\n")
    p = Postern(str(tmp_path / "relay"), start=False, provider_config_file=str(tmp_path / "in-use.conf"))
    out = p.ctl("shaping", "replay", str(tmp_path / "events.json"), "--rules", str(tmp_path / "other.conf"))
    assert "8 attempts, 6 of them refused in words of the other side; 1 lines were not understood" in out
    assert "        3         5  too-fast: slow rate (other.conf:3)" in out
    assert "        0         1  away: suspend for 5m (other.conf:" in out
    assert "        2         0  no rule" not in out and "        3         0  no rule" in out
    assert "        2  no rule -> too-fast: slow rate" in out and "\x1b" not in out
    lines = [json.loads(x) for x in p.ctl("shaping", "replay", str(tmp_path / "events.json"), "--json", "--samples", "1",
                                          "--rules", str(tmp_path / "other.conf")).splitlines()]
    [away] = [x for x in lines if x.get("after") == "away: suspend for 5m"]
    assert away["differs"] == 1 and away["samples"] == ["4XyzAbCdeFz0001 421 go away"]
    wrong = p.ctl("shaping", "replay", str(tmp_path / "events.json"), "--rules", "/nonexistent", check=False)
    assert wrong.returncode == 1 and "/nonexistent" in wrong.stdout + wrong.stderr
    assert p.ctl("shaping", "replay", "--rules", "x", check=False).returncode == 2


def test_replay_reads_what_was_rotated_and_refuses_junk(tmp_path):
    rules_file = tmp_path / "rules.conf"
    rules_file.write_text(RULES)
    text = ("\n".join([event("slow down")] * 3 + [event("ok", 250, "delivered")]) + "\n").encode()
    p = Postern(str(tmp_path / "relay"), start=False, provider_config_file=str(rules_file))

    def replay(name, content=None, **more):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        return subprocess.run([os.path.join(BIN, "postern"), "-c", p.directory, "shaping", "replay",
                               name if name == "-" else str(tmp_path / name), "--rules", str(rules_file)],
                              capture_output=True, text=True, timeout=60, check=False, **more)
    for done in (replay("events.json", text), replay("events.json.2.gz", gzip.compress(text)),
                 replay("-", input=text.decode())):
        assert done.returncode == 0 and "4 attempts, 3 of them refused" in done.stdout, done
        assert "No differences." in done.stdout
    done = replay("mail.log", b"Nov 22 sshd: hello\n{}\n\xff\x00\x01 junk\n" * 100)
    assert done.returncode == 1 and not done.stdout, done
    assert "mail.log: is no event log: 300 of its 300 lines were not understood, and none tells" in done.stderr
    done = replay("events.json.3.gz", gzip.compress(text * 1000)[:-40])
    assert done.returncode == 1 and "the compressed file ends too early" in done.stderr and not done.stdout, done
    done = replay("events.json.4.xz", lzma.compress(text))
    assert done.returncode == 1 and "is compressed: xzcat FILE | postern shaping replay - " in done.stderr, done
    done = replay("empty.json", b"")
    assert done.returncode == 0 and "There is nothing to compare." in done.stdout, done
    done = replay("gone.json")
    assert done.returncode == 1 and "gone.json: No such file" in done.stderr, done


COUNTING = """
rule third { code = '^4' text = 'slow down' dimension = "rate" action = "slow" after = 3 within = "1m"
  matches = {"421 slow down"} }
rule part { code = '^4' text = 'hm' dimension = "rate" action = "slow" fraction = 0.5 samples = 10
  matches = {"452 hm"} }
rule account { code = '^4' text = 'your account' scope = "account" action = "suspend" for = "1h" after = 2
  within = "1h" matches = {"421 your account"} }
"""


def test_replay_counts_as_the_queue_manager_does(tmp_path):
    """Four in a minute: two of them act; one an hour: none. Nothing of accounts in turn."""
    (tmp_path / "in-use.conf").write_text(RULES)
    (tmp_path / "other.conf").write_text(COUNTING)
    lines = [event("slow down", time=100 + n, id=f"a{n}") for n in range(4)]
    lines += [event("slow down", time=5000 + 3600 * n, id=f"b{n}") for n in range(4)]
    lines += [event("hm" if n % 2 else "fine", 452 if n % 2 else 250, "deferred" if n % 2 else "delivered",
                    time=50000 + n, id=f"c{n}") for n in range(24)]
    lines += [event("your account", time=60000 + n, id=f"d{n}", account="shop" if n else "bank") for n in range(3)]
    (tmp_path / "events.json").write_text("\n".join(lines) + "\n")
    p = Postern(str(tmp_path / "relay"), start=False, provider_config_file=str(tmp_path / "in-use.conf"))
    args = ("shaping", "replay", str(tmp_path / "events.json"), "--rules", str(tmp_path / "other.conf"))
    found = {x["rule"]: (x["matched_after"], x["after"]) for x in map(json.loads, p.ctl(*args, "--json").splitlines())
             if "rule" in x}
    assert found["third"] == (8, 2) and found["account"] == (3, 1), found
    assert found["part"][0] == 12 and 1 <= found["part"][1] <= 8, found
    out = p.ctl(*args)
    assert "third: slow rate, 3 times in 1m (" in out and "; matched 0 and 8" in out
    assert "part: slow rate, 50% of 10 attempts (" in out


REAL = """
default { start_rate = "100/s" start_connections = 3 connections = 4 }
provider big { mx = {".big.test"} }
rule third { code = '^4' text = 'slow down' dimension = "rate" action = "slow" outcome = "retry"
  after = 3 within = "1m" matches = {"421 slow down"} }
rule part { code = '^4' text = 'hm' stage = {"dot"} dimension = "rate" action = "slow" outcome = "retry"
  fraction = 0.4 samples = 5 matches = {"452 hm"} }
rule account { code = '^4' text = 'your account' scope = "account" dimension = "rate" action = "slow"
  outcome = "retry" after = 2 within = "1h" matches = {"421 your account"} }
rule domain { code = '^4' text = 'your domain' scope = "dkim" dimension = "rate" action = "slow"
  outcome = "retry" after = 2 within = "1h" matches = {"421 your domain"} }
rule all { code = '^4' text = 'all of you' scope = "provider" dimension = "rate" action = "slow"
  outcome = "retry" after = 2 within = "1h" matches = {"421 all of you"} }
rule mailbox { code = '^4' text = 'full' scope = "recipient" outcome = "fail" after = 2 matches = {"452 full"} }
"""


def test_replay_of_a_real_log_decides_as_the_run_did(tmp_path):
    """The log tells of each reply which rule matched, and whether it acted or was only
    counted; the same rules come to the same in replay: of several recipients, attempts that
    were not refused, two destinations, senders and signing domains."""
    c = Control(dict(event_log_file="events"), Ahead(tmp_path, ("mono", "wall")))
    q = c.q
    rules(c, REAL)
    q.wait_log("providers.conf: 1 providers, 6 rules")
    sites = {"d.test": b"mx.d.test", "e.test": b"mx1.big.test", "f.test": b"mx2.big.test"}
    script = []
    for n in range(48):
        text, code, stage = [("slow down", 421, MAIL), ("hm", 452, DOT), ("your account", 421, MAIL),
                             ("your domain", 421, MAIL), ("all of you", 421, MAIL), ("full", 452, RCPT)][n % 6]
        script.append((list(sites)[n // 2 % 3], text if n % 7 else None, code, stage, f"acc{n % 3}", f"s{n % 2}.test"))
    known = set()

    def turn_of(id):
        """Its job; those before it, which were refused, go as the lane allows."""
        while (job := q.job()).id != id.encode():
            q.result(job)
        return job
    for n, (domain, text, code, stage, account, signer) in enumerate(script):
        id = q.commit([f"a{n}@{domain}", f"b{n}@{domain}"], account=account, signer=signer)
        if domain not in known:
            q.resolved(site=sites[domain], targets=[dict(TARGET, host=sites[domain])], ttl=10 ** 8)
        known.add(domain)
        job = turn_of(id)
        answers = [dict(status=SENT, code=250, enhanced="", text="Ok", stage=DOT, index=0),
                   dict(refusal(code, text, stage) if text else dict(status=SENT, code=250, text="Ok", stage=DOT),
                        index=1)]
        if text and n % 2:
            answers[0] = dict(answers[1], index=0)
        q.result(job, scope=1, outcomes=answers, host=sites[domain].decode())
        q.wait_log(rf"to=<b{n}@{domain}>.*status=")
        if text == "full" and n > 36:  # once more, and that is believed
            c.act("flush", id)
            job = turn_of(id)
            q.result(job, scope=0, outcomes=refusal(code, text, stage), host=sites[domain].decode())
            q.wait_log(rf"to=<b{n}@{domain}>.*status=bounced")
    with open(q.master.events_path, encoding="utf-8") as f:
        events = [json.loads(line) for line in f]
    (tmp_path / "rules.conf").write_text(REAL)
    shutil.copy(q.master.events_path, tmp_path / "events.json")
    c.stop()
    refused = [e for e in events if e["event"] in ("deferred", "bounced") and not e["local"] and e.get("rule")]
    assert {e["rule"] for e in refused} == {"third", "part", "account", "domain", "all", "mailbox"}
    assert all(e["domain"] in ("s0.test", "s1.test") and e["delivery"] > 0 for e in refused)
    assert {e["destination"] for e in refused if "destination" in e} == {"big"}
    assert all(":" in e["where"] for e in refused)
    run = {}
    for e in refused:
        matched, acted = run.get(e["rule"], (0, 0))
        run[e["rule"]] = (matched + 1, acted + bool(e.get("acts")))
    assert all(0 < acted < matched for matched, acted in run.values()), run  # both are seen of each
    p = Postern(str(tmp_path / "relay"), start=False, provider_config_file=str(tmp_path / "rules.conf"))
    out = p.ctl("shaping", "replay", str(tmp_path / "events.json"), "--rules", str(tmp_path / "rules.conf"), "--json")
    replay = {x["rule"]: (x["matched_after"], x["after"]) for x in map(json.loads, out.splitlines()) if "rule" in x}
    assert replay == run


def test_events_tell_the_stage(tmp_path):
    """What replay needs to know of a reply is in the event log."""
    server = socket.create_server(("127.0.0.1", 0))
    with Postern(str(tmp_path / "relay"), relayhost=f"[127.0.0.1]:{server.getsockname()[1]}",
                 event_log_file="events.json") as p:
        p.send("s@src.test", ["a@d.test"], "Subject: x\r\n\r\nbody\r\n")
        s, _ = server.accept()
        with s:
            s.sendall(b"421 4.7.0 go away\r\n")
            events = tmp_path / "relay" / "events.json"
            wait_until(lambda: '"event":"deferred"' in events.read_text(), 20, "the deferral")
        server.close()  # or the next attempt would wait for a greeting
    [e] = [json.loads(x) for x in events.read_text().splitlines() if '"event":"deferred"' in x][:1]
    assert e["stage"] == "greeting"


def test_export_and_import_by_command(tmp_path):
    with Postern(str(tmp_path / "relay")) as p:
        file = tmp_path / "learned.json"
        file.write_text("".join(json.dumps(entry(name=f"mx{n}.test", key=f"k{n}")) + "\n" for n in range(100)))
        assert "100 destinations taken" in p.ctl("shaping", "import", str(file))
        assert len(p.ctl("shaping", "export").splitlines()) == 100
        file.write_text("{}\n")
        done = p.ctl("shaping", "import", str(file), check=False)
        assert done.returncode == 1 and "has no \"key\"" in done.stderr
        file.write_text("hello\n")
        done = p.ctl("shaping", "import", str(file), check=False)
        assert done.returncode == 1 and f"{file}:1: not a JSON object" in done.stderr
