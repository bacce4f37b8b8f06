"""`postern shaping why`: whatever keeps a message, the operator is told what it waits for,
who or what is the cause, and until when."""
import json
import os
import subprocess
import time

import pytest

from postern import BIN, wait_until
from test_qmgr_delivery import NO_SUCH_USER
from test_qmgr_operator import Control
from test_shaping import MAIL, RCPT, refusal, rules

RULES = """
default { start_rate = "1000/s" start_connections = 2 connections = 2 }
rule blocked { code = '^5' text = 'blocked' stage = {"mail"} action = "suspend" for = "2h"
  outcome = "retry" matches = {"550 5.7.1 blocked"} }
rule grey { code = '^4' text = 'greylisted' stage = {"rcpt"} scope = "recipient" greylist = true
  retry_after = "5m" matches = {"450 greylisted"} }
rule account-away { text = 'complaints about account' scope = "account" action = "suspend" for = "2h"
  outcome = "retry" matches = {"451 complaints about account"} }
rule account-slow { text = 'account too fast' scope = "account" dimension = "rate" action = "set"
  value = "1/s" outcome = "retry" matches = {"451 account too fast"} }
"""


def start(config=None, text=RULES, **options):
    control = Control(config, **options)
    rules(control, text)
    control.q.wait_log("providers.conf: 0 providers")
    return control


@pytest.fixture
def c():
    control = start()
    yield control
    control.stop()


def ask(c, id):
    return c.ask(request="shaping.why", id=id)


def why(c, id):
    """What the one part of a message waits for."""
    lines = ask(c, id)
    assert len(lines) == 2, lines
    assert lines[1]["done"] and lines[1]["arrival"] < lines[1]["expires"]
    assert lines[0]["waits"] and lines[0]["recipient"]
    return lines[0]


def becomes(c, id, state):
    wait_until(lambda: ask(c, id)[0].get("state") == state, 10, f"{id} in state {state}")
    return why(c, id)


def first(c, recipient="a@d.test", **fields):
    """A destination that is known, and has taken a message."""
    c.q.commit([recipient], **fields)
    c.q.resolved()
    c.q.result(c.q.job())
    c.q.wait_log("status=sent")


def near(line, seconds, slack=5):
    return abs(line["until"] - time.time() - seconds) < slack and abs(line["next_in"] - seconds) < slack


def test_its_destination_is_being_looked_up(c):
    id = c.q.commit(["a@d.test"])
    c.q.resolve.expect("ipc_resolve_request")
    assert why(c, id)["state"] == "routing"


def test_a_delivery_process_has_it(c):
    id = c.q.commit(["a@d.test"])
    c.q.resolved()
    c.q.job()
    line = why(c, id)
    assert line["state"] == "delivering" and line["for"] >= 0
    assert line["lane"]["destination"] == "mx.d.test" and line["lane"]["in_flight"] == 1


def test_in_its_share_behind_others(c):
    """As many deliveries as allowed are under way: how many of the sender's own go before it, and
    how many others want to go there."""
    q = c.q
    under_way = [q.commit(["a@d.test"], account="shop")]
    q.resolved()
    under_way.append(q.commit(["a@d.test"], account="shop"))
    for _ in under_way:
        q.job()
    in_line = [q.commit(["a@d.test"], account="shop") for _ in range(3)]
    q.commit(["b@d.test"], account="bank")
    line = why(c, in_line[2])
    assert line["state"] == "connections" and "as many deliveries as allowed are under way" in line["waits"]
    assert (line["before_it"], line["in_line"], line["others"]) == (2, 3, 1)
    assert line["lane"]["concurrency"] == 2 and line["lane"]["configured"]["connections"] == 2


def test_waiting_for_the_rate():
    c = start(text=RULES.replace("1000/s", "2/min"))
    try:
        id = c.q.commit(["a@d.test"])
        c.q.resolved()
        c.q.job()
        id = c.q.commit(["b@d.test"])
        line = becomes(c, id, "rate")
        assert "waiting for the rate" in line["waits"] and 0 < line["next_in"] <= 31
        last = [c.q.commit(["b@d.test"]) for _ in range(9)][-1]
        assert why(c, last)["before_it"] == 9 and abs(why(c, last)["expected_in"] - 300) < 5
    finally:
        c.stop()


def test_waiting_until_a_new_connection_is_allowed():
    c = start(text=RULES.replace("connections = 2 }", "connections = 2 connection_rate = \"1/min\" }"))
    try:
        q = c.q
        q.commit(["a@d.test"])
        q.resolved()
        q.result(q.job(), connections=1)
        id = q.commit(["b@d.test"])
        line = becomes(c, id, "new_connections")
        assert "new connection" in line["waits"] and 0 < line["next_in"] <= 61
    finally:
        c.stop()


def test_the_daily_cap_is_used_up():
    c = start(text=RULES.replace("connections = 2 }", "connections = 2 daily_cap = 1 }"))
    try:
        first(c)
        line = becomes(c, c.q.commit(["b@d.test"]), "daily_cap")
        assert "has been sent: for midnight UTC" in line["waits"] and line["ends"] % 86400 < 2
        assert 0 < line["ends_in"] <= 86400 and "expected_in" not in line
        assert "1 sent of 1 a day (daily_cap in providers.conf)" in line["because"]
        lane = c.ask(request="shaping.show", destination="d.test")[0]
        assert (lane["configured"]["daily_cap"], lane["used_today"]) == (1, 1)
        assert lane["state_code"] == "daily_cap" and lane["allowed_by"] == "providers.conf"
    finally:
        c.stop()


def test_no_delivery_process_has_room(c):
    first(c)
    c.q.relay.send("ipc_relay_ready", jobs=0)
    id = c.q.commit(["a@d.test"])
    line = becomes(c, id, "processes")
    assert "delivery processes" in line["waits"]


def test_suspended_by_hand(c):
    first(c)
    c.ask(request="shaping.act", action="suspend", destination="d.test", seconds=3600, reason="delisting")
    id = c.q.commit(["b@d.test"])
    c.q.wait_log(rf"{id}: .*status=deferred")
    line = why(c, id)
    assert line["state"] == "suspended_by_hand" and "delisting" in line["because"]
    assert line["lane"]["reason"] == "delisting" and 3500 < line["lane"]["suspended_for"] <= 3600
    assert line["suspension"]["name"] == "d.test" and 3500 < line["ends_in"] <= 3600
    assert near(line, 3600, 400)


def test_suspended_by_a_rule(c):
    """The rule's place and the words that it knew; when one message probes."""
    id = c.q.commit(["a@d.test"])
    c.q.resolved()
    c.q.result(c.q.job(), scope=1, outcomes=refusal(550, "5.7.1 blocked", MAIL))
    c.q.wait_log("suspended")
    line = becomes(c, id, "suspended")
    assert "blocked" in line["because"] and 7000 < line["lane"]["next_probe_in"] <= 7200
    lane = c.ask(request="shaping.show", destination="d.test")[0]
    assert lane["events"][-1]["where"] == "a.conf:3"


def test_an_account_is_suspended_by_a_rule(c):
    id = c.q.commit(["a@d.test"], account="shop")
    c.q.resolved()
    c.q.result(c.q.job(), scope=1, outcomes=refusal(451, "complaints about account", MAIL))
    line = becomes(c, id, "sender_suspended")
    assert (line["brake"]["kind"], line["brake"]["who"], line["brake"]["suspended"]) == ("account", "shop", True)
    assert "a.conf:7" in line["brake"]["reason"] and 7000 < line["brake"]["suspended_for"] <= 7200


def test_an_account_is_slowed_by_a_rule(c):
    """Rate, rule, since when, and when the next of its mail goes."""
    q = c.q
    q.commit(["a@d.test"], account="shop")
    q.resolved()
    q.result(q.job(), scope=1, outcomes=refusal(451, "account too fast", MAIL))
    q.wait_log("account shop slowed to 1.000/s")
    ids = [q.commit(["a@d.test"], account="shop") for _ in range(30)]
    line = becomes(c, ids[-1], "sender_slowed")
    assert line["brake"]["rate"] == 1 and "a.conf:9" in line["brake"]["reason"]
    assert not line["lane"]["suspended"]


def test_greylisted(c):
    id = c.q.commit(["a@d.test"])
    c.q.resolved()
    c.q.result(c.q.job(), outcomes=refusal(450, "greylisted", RCPT))
    line = becomes(c, id, "greylisted")
    assert line["attempts"] == 1 and "greylisted" in line["because"] and near(line, 300, 20)


def test_its_own_next_attempt(c):
    id = c.q.commit(["a@d.test"])
    c.q.resolved()
    c.q.result(c.q.job(), outcomes=dict(refusal(452, "4.2.2 mailbox full", RCPT), enhanced="4.2.2"))
    line = becomes(c, id, "retry")
    assert line["attempts"] == 1 and "mailbox full" in line["because"] and near(line, 300, 60)


def test_its_transport_is_deferred():
    c = start(dict(defer_transports="smtp"))
    try:
        id = c.q.commit(["a@d.test"])
        c.q.resolved()
        assert "defer_transports" in becomes(c, id, "transport")["waits"]
    finally:
        c.stop()


def test_held_and_deleted(c):
    id = c.q.commit(["a@d.test"])
    c.act("hold", id)
    line = why(c, id)
    assert line["state"] == "held" and "postern queue release" in line["waits"]
    c.act("delete", id)
    line = why(c, id)
    assert line["state"] == "deleted" and line["until"] > time.time()


def test_the_notice_is_being_made(c):
    id = c.q.commit(["a@d.test"])
    c.q.resolved()
    c.q.result(c.q.job(), outcomes=NO_SUCH_USER)
    c.q.bounce.expect("ipc_notice_request")
    assert "notice to its sender" in becomes(c, id, "notice")["waits"]


def test_on_the_disk_only():
    """It is read back for the answer, and stays on the disk for the schedule."""
    c = start(dict(qmgr_message_active_limit="4"))
    try:
        q = c.q
        ids = []
        for n in range(6):
            ids.append(q.commit(["a@d.test"]))
            if n == 0:
                q.resolved()
            q.result(q.job(), outcomes=dict(refusal(452, "4.2.2 mailbox full", RCPT), enhanced="4.2.2"))
            q.wait_log(rf"{ids[-1]}: .*status=deferred")
        last = ask(c, ids[-1])
        assert last[0]["state"] == "retry" and last[-1]["on_disk"] is True, last
        assert "mailbox full" in last[0]["because"] and near(last[0], 300, 60)
    finally:
        c.stop()


def test_parked_behind_its_senders_own_mail():
    """When memory is scarce a queue has its share of it; what is beyond waits on the disk."""
    c = start(dict(qmgr_message_active_limit="8"))
    try:
        q = c.q
        ids = [q.commit(["a@d.test"], account="shop")]
        q.resolved()
        q.job()
        ids += [q.commit(["a@d.test"], account="shop") for _ in range(20)]
        q.job()
        line = becomes(c, ids[-1], "parked")
        assert "its share" in line["waits"]
    finally:
        c.stop()


def test_two_recipients_wait_for_two_things(c):
    q = c.q
    id = q.commit(["a@d.test", "b@e.test"])
    q.resolved()
    q.resolved()
    jobs = {job.recipients[0].address: job for job in (q.job(), q.job())}
    q.result(jobs[b"b@e.test"], outcomes=refusal(450, "greylisted", RCPT))
    wait_until(lambda: {x.get("state") for x in ask(c, id)[:-1]} == {"delivering", "greylisted"}, 10,
               "one under way, one greylisted")


def command(c, *args):
    """The `postern` command at this control socket."""
    directory = c.q.directory
    public = os.path.join(directory, "spool", "public")
    os.makedirs(public, exist_ok=True)
    if not os.path.exists(os.path.join(public, "control")):
        os.symlink(c.path, os.path.join(public, "control"))
    conf = os.path.join(directory, "ctl")
    os.makedirs(conf, exist_ok=True)
    with open(os.path.join(conf, "main.cf"), "w", encoding="utf-8") as f:
        f.write(f"queue_directory = {directory}/spool\nmyhostname = relay.test\n")
    return subprocess.run([os.path.join(BIN, "postern"), "-c", conf, *args], check=True, text=True,
                          stdout=subprocess.PIPE).stdout


def test_the_command_says_it_in_words(c):
    q = c.q
    q.commit(["a@d.test"], account="shop")
    q.resolved()
    q.job()
    q.commit(["a@d.test"], account="shop")
    q.job()
    q.commit(["b@d.test"], account="bank")
    q.commit(["a@d.test"], account="shop")
    id = q.commit(["news@d.test"], account="shop")
    out = command(c, "shaping", "why", id)
    assert "news@d.test: in line: as many deliveries as allowed are under way\n" in out
    assert "  1 of its sender's go before it; it shares the destination with 1 other sender\n" in out
    assert "  mx.d.test: as many deliveries as allowed are under way; 3 in line, 2 under way\n" in out
    assert "The message is from <s@client.test>, account shop, class normal, " in out
    lines = [json.loads(x) for x in command(c, "shaping", "why", id, "--json").splitlines()]
    assert lines[0]["state"] == "connections" and lines[-1]["account"] == "shop"


def test_all_brakes_of_senders_are_listed(c):
    """Those of rules and by hand, also at places that have no mail; each can be taken off."""
    q = c.q
    q.commit(["a@d.test"], account="shop")
    q.resolved()
    q.result(q.job(), scope=1, outcomes=refusal(451, "account too fast", MAIL))
    q.wait_log("account shop slowed to 1.000/s")
    first(c, "b@e.test", account="bank")
    c.ask(request="shaping.act", action="suspend", destination="e.test", account="bank", seconds=3600,
          reason="under review")
    c.ask(request="shaping.act", action="suspend", destination="all", domain="spam.test", reason="phishing")
    lines = c.ask(request="shaping.list")
    brakes = {x["brake"]["who"]: x["brake"] for x in lines if "brake" in x}
    assert set(brakes) == {"shop", "bank", "spam.test"}
    assert brakes["shop"]["rate"] == 1 and brakes["shop"]["at"] == "mx.d.test"
    assert "a.conf:9" in brakes["shop"]["reason"] and 0 <= brakes["shop"]["since"] < 60
    assert brakes["bank"]["by_hand"] and 3500 < brakes["bank"]["suspended_for"] <= 3600
    assert brakes["spam.test"]["kind"] == "domain" and "suspended_for" not in brakes["spam.test"]
    out = command(c, "shaping", "list")
    assert "Senders that are slowed down or suspended:\n" in out
    assert "  account bank at e.test suspended for 59m by hand" in out
    assert "  domain spam.test at all destinations suspended until it is resumed by hand" in out
    for place, how in (("d.test", dict(account="shop")), ("e.test", dict(account="bank")),
                       ("all", dict(domain="spam.test"))):
        assert c.ask(request="shaping.act", action="resume", destination=place, **how)[-1]["done"]
    assert [x for x in c.ask(request="shaping.list") if "brake" in x] == []


def test_a_slowed_sender_is_told_when_its_mail_goes(c):
    q = c.q
    q.commit(["a@d.test"], account="shop")
    q.resolved()
    q.result(q.job(), scope=1, outcomes=refusal(451, "account too fast", MAIL))
    q.wait_log("account shop slowed to 1.000/s")
    ids = [q.commit(["a@d.test"], account="shop") for _ in range(30)]
    line = becomes(c, ids[-1], "sender_slowed")
    assert 15 < line["next_in"] <= 40 and line["before_it"] >= 25, line
    assert 0 <= line["brake"]["since"] < 60 and line["brake"]["in_line"] >= 25
    out = command(c, "shaping", "why", ids[-1])
    assert "in line: its sender is slowed down at this destination\n" in out
    assert "  account shop at mx.d.test slowed to 1/s since " in out and "the next goes in " in out


def test_slow_rates_are_told_by_the_hour():
    """Also what is set beyond the configured bound: that is what holds, and is told."""
    c = Control()
    rules(c, 'default { start_rate = "360/h" message_rate = "360/h" }\n')
    c.q.wait_log("providers.conf: 0 providers")
    c.q.commit(["a@d.test"])
    c.q.resolved()
    c.q.result(c.q.job())
    c.ask(request="shaping.act", action="set", destination="d.test", rate=100 / 3600)
    assert " 100/h " in command(c, "shaping", "list")
    out = command(c, "shaping", "show", "d.test")
    assert "careful from 100/h on   configured: at most 0.1/s" in out
    c.ask(request="shaping.act", action="set", destination="d.test", rate=500)
    [event] = [e for e in c.ask(request="shaping.show", destination="d.test")[0]["events"]][-1:]
    assert event["after"] == 0.1
    c.stop()


BOUNDED = """default { connections = 15 message_rate = "50/s" }
provider big { domains = {"d.test"}
  connections = 20
  total_connections = 12
}
domain slow.test { message_rate = "360/h" }
"""


def test_what_is_set_beyond_a_bound_is_told_with_its_line():
    c = Control()
    rules(c, BOUNDED)
    c.q.wait_log("providers.conf: 1 providers")
    c.q.commit(["a@d.test"])
    c.q.resolved()
    out = command(c, "shaping", "set", "d.test", "--connections", "50", "--rate", "40")
    assert "  connections: 20 holds, not 50, because of a.conf:2: provider big: connections = 20\n" in out, out
    assert ("  connections over all source addresses: 12 holds, not 50, because of "
            "a.conf:2: provider big: total_connections = 12\n") in out, out
    assert "  rate: " not in out
    out = command(c, "shaping", "set", "d.test", "--rate", "60", "--messages", "1000")
    assert "  rate: 50.0/s holds, not 60.0/s, because of a.conf:1: default: message_rate = 50/s\n" in out, out
    assert "messages: " not in out and "connections: " not in out
    [line] = [x for x in c.ask(request="shaping.act", action="set", destination="d.test", connections=21) if "state" in x]
    assert line["concurrency"] == 20
    assert line["bounded"][0] == {"setting": "connections", "asked": 21, "holds": 20,
                                  "because": "a.conf:2: provider big: connections = 20"}
    assert "bounded" not in c.ask(request="shaping.act", action="set", destination="d.test", connections=12)[0]
    # the narrowest section that says it; what main.cf says where there is none
    c.q.commit(["a@slow.test"])
    c.q.resolved()
    out = command(c, "shaping", "set", "slow.test", "--rate", "2")
    assert "  rate: 0.1/s holds, not 2.0/s, because of a.conf:6: domain slow.test: message_rate = 0.1/s\n" in out, out
    rules(c, "default { start_connections = 2 }\n")
    c.q.wait_log("providers.conf: 0 providers")
    c.q.commit(["a@e.test"])
    c.q.resolved()
    out = command(c, "shaping", "set", "e.test", "--connections", "50")
    assert "20 holds, not 50, because of main.cf: default_destination_concurrency_limit = 20\n" in out, out
    c.stop()
