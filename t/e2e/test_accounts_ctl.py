"""postern account, user, domain, plan, grant, usage on a whole Postern."""
import json
import os
import re
import select
import signal
import subprocess

import pytest
from postern import BIN, Postern, free_port, wait_until
from qmgr_peers import new_id

PLANS = 'plan small { messages = 100\n at_limit = block }\n'


@pytest.fixture
def relay(tmp_path):
    with open(tmp_path / "plans.conf", "w", encoding="utf-8") as f:
        f.write(PLANS)
    with Postern(tmp_path, accounts_enable="yes", plans_file="plans.conf",
                 relayhost=f"[127.0.0.1]:{free_port()}",  # nobody there: mail stays
                 accounts_minfree="0", scram_iterations="4096") as p:
        wait_until(lambda: p.ctl("account", "status", check=False).returncode == 0, 20, "quota")
        p.wait_log("plans read from")
        yield p


def typed(p, text, *args, check=True):
    """`postern` with this standard input."""
    done = subprocess.run([os.path.join(BIN, "postern"), "-c", p.directory, *args], input=text,
                          capture_output=True, text=True, timeout=60, check=False)
    if check:
        assert done.returncode == 0, (args, done.stdout, done.stderr)
    return done


def test_commands(relay):
    p = relay
    p.ctl("account", "add", "acme", "--plan", "small", "--reference", "a@acme.test")
    typed(p, "secret\n", "user", "add", "web@acme.test", "acme")
    typed(p, "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n",
          "user", "add", "old@acme.test", "acme", "--hash")
    p.ctl("domain", "add", "acme", "acme.test")
    p.ctl("grant", "add", "acme", "5GB", "--bought", "--note", "a package")
    shown = json.loads(p.ctl("account", "show", "acme", "--json"))
    assert shown["users"] == ["old@acme.test", "web@acme.test"] and shown["plan"] == "small"
    assert "small" in p.ctl("account", "show", "acme")
    assert "bcrypt" in p.ctl("user", "list", "acme") and "web@acme.test" in p.ctl("user", "list")
    assert "acme.test" in p.ctl("domain", "list") and "5.0 GB" in p.ctl("grant", "list")
    assert "small" in p.ctl("plan", "list") and "block" in p.ctl("plan", "show", "small")
    usage = json.loads(p.ctl("usage", "show", "acme", "--json"))
    assert usage["limit"] == 100 and usage["messages"] == 0
    p.ctl("user", "suspend", "web@acme.test")
    assert json.loads(p.ctl("user", "show", "web@acme.test", "--json"))["status"] == "suspended"
    p.ctl("account", "snapshot")
    assert os.path.exists(p.path("data", "accounts", "snapshot", "user.db"))
    audit = [json.loads(l) for l in p.ctl("account", "audit", "--json").splitlines()]
    assert len(audit) == 6 and all(a["uid"] == os.getuid() for a in audit)
    assert p.ctl("usage", "report", "--month", "2026-11").splitlines() is not None
    for args, status, words in [
            (("account", "show", "nobody"), 5, "There is no account nobody"),
            (("account", "add"), 2, "the account is missing"),
            (("account", "delete", "acme"), 2, "--yes"),
            (("account", "add", "x", "--plan", "none"), 5, "no plan none"),
            (("user", "add", "x", "acme"), 2, "standard input"),
            (("usage", "report", "--month", "nov"), 2, "2026-11")]:
        done = p.ctl(*args, check=False)
        assert done.returncode == status and words in done.stderr, (args, done)


def test_export_and_import(relay, tmp_path):
    p = relay
    p.ctl("account", "add", "acme")
    typed(p, "secret\n", "user", "add", "web", "acme")
    text = p.ctl("account", "export")
    p.ctl("user", "delete", "web", "--yes")
    p.ctl("account", "delete", "acme", "--yes")
    done = typed(p, text, "account", "import", "-")
    assert "2 records imported" in done.stdout
    def records(lines):
        return [json.loads(l) for l in lines.splitlines()]
    assert records(p.ctl("account", "export")) == records(text)
    bad = typed(p, '{"type":"user","login":"x","account":"none"}\n', "account", "import", "-",
                check=False)
    assert bad.returncode == 1 and bad.stderr == (
        "postern: standard input:1: account: there is none of that name before this record.\n"
        "postern: nothing was imported; mend it and import the file again\n")
    # in the second lot, after empty lines
    path = tmp_path / "many.jsonl"
    for last, words in (('{"type":"account","account":"b","plan":"nil"}', "There is no plan nil"),
                        ('{"type":', "is no JSON object in one line"),
                        ('{"type":"user","login":"x","account":"none"}', "account: there is none")):
        path.write_text("\n".join(['{"type":"account","account":"many"}', "", "  "] +
                                  [f'{{"type":"domain","account":"many","domain":"d{n}.test"}}'
                                   for n in range(600)] + [last]), encoding="utf-8")
        bad = p.ctl("account", "import", str(path), check=False)
        assert bad.returncode == 1
        assert bad.stderr.startswith(f"postern: {path}:604: {words}"), bad.stderr
        assert "postern: the first 500 records were imported, the rest was not" in bad.stderr
        assert "--usage replace" not in bad.stderr, "it was no first import"


def test_a_first_import_that_stops_half_way(tmp_path):
    """What to do is told, and what is left out of a second one that does it otherwise."""
    with open(tmp_path / "plans.conf", "w", encoding="utf-8") as f:
        f.write(PLANS)
    counts = [{"type": "account", "account": "many"},
              *[{"type": "domain", "account": "many", "domain": f"d{n}.test"} for n in range(600)],
              {"type": "held", "id": new_id(), "until": 2000000000}]
    good = "".join(json.dumps(r) + "\n" for r in counts)
    with Postern(tmp_path, accounts_enable="yes", plans_file="plans.conf", accounts_minfree="0",
                 relayhost=f"[127.0.0.1]:{free_port()}", scram_iterations="4096") as p:
        wait_until(lambda: p.ctl("account", "status", check=False).returncode == 0, 20, "quota")
        bad = typed(p, good + "nonsense\n", "account", "import", "-", check=False)
        assert bad.returncode == 1
        assert "the first 500 records were imported" in bad.stderr
        assert "import the whole file again, with --usage replace" in bad.stderr
        again = typed(p, good, "account", "import", "--usage", "replace", "-")
        assert again.stdout.startswith("602 records") and not again.stderr
        assert '"type":"held"' in p.ctl("account", "export")
        # otherwise what is left out is told, with how to have it
        more = json.dumps({"type": "held", "id": new_id(), "until": 2000000000})
        third = typed(p, good + more, "account", "import", "-")
        assert "charges of messages (0) and mail that is held (1) were left out" in third.stderr
        assert "With --usage replace those of the file are taken" in third.stderr
        assert third.stdout.startswith("602 records")


def test_audit_of_a_time(relay):
    relay.ctl("account", "add", "acme")
    def audit(*args):
        return [json.loads(l)["what"] for l in
                relay.ctl("account", "audit", "--json", *args).splitlines()]
    assert audit("--since", "1h") == audit() == ["account acme"]
    assert audit("--until", "1h") == audit("--since", "2100-01-01") == []
    assert audit("--since", "2020-01-01", "--until", "2100-01-01 00:00") == ["account acme"]
    wrong = relay.ctl("account", "audit", "--since", "2026-11-31", check=False)
    assert wrong.returncode == 2 and "give a date such as" in wrong.stderr


def test_users_without_scram_keys_are_told(relay):
    """At the import and in the list, unless SCRAM is not offered anyway."""
    bcrypt = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"
    relay.ctl("account", "add", "acme")
    typed(relay, "secret\n", "user", "add", "web", "acme")
    text = "".join(json.dumps({"type": "user", "login": f"u{i}", "account": "acme",
                               "hash": bcrypt}) + "\n" for i in range(1203))
    done = typed(relay, text, "account", "import", "-")
    assert "1203 users have no SCRAM keys yet" in done.stderr and done.stdout.startswith("1203 ")
    again = typed(relay, text, "account", "import", "-", "--json")
    assert json.loads(again.stdout)["without_scram"] == 1203 and not again.stderr
    listed = typed(relay, "", "user", "list")
    assert "1203 users have no SCRAM keys yet" in listed.stderr
    assert not typed(relay, "", "user", "list", "nobody", check=False).stdout
    with open(relay.path("main.cf"), "a", encoding="utf-8") as f:
        f.write("smtpd_sasl_mechanism_filter = plain, login\n")
    assert not typed(relay, "", "user", "list").stderr


def test_secrets_are_nowhere_in_the_log(relay):
    typed(relay, "hush-hush\n", "user", "add", "x", "none", check=False)
    relay.ctl("account", "add", "acme")
    typed(relay, "hush-hush\n", "user", "add", "x", "acme")
    assert "hush-hush" not in relay.log() + relay.ctl("account", "audit") + relay.ctl(
        "account", "export")


def test_F18_quota_that_stands_still_is_replaced(tmp_path):
    with Postern(tmp_path, accounts_enable="yes", accounts_minfree="0", scram_iterations="4096",
                 service_watchdog_timeout="2s") as p:
        def answers():
            return p.ctl("account", "status", check=False).returncode == 0
        wait_until(answers, 20, "quota")
        p.ctl("account", "add", "acme")
        (quota,) = p.pids("quota")
        os.kill(quota, signal.SIGSTOP)
        p.wait_log(rf"\(process {quota}\) does not respond", 30)
        wait_until(lambda: p.pids("quota") not in ([], [quota]), 30, "another quota")
        wait_until(answers, 20, "quota")
        assert "acme" in p.ctl("account", "list")


def test_F16_quota_is_started_again(relay):
    (pid,) = relay.pids("quota")
    relay.ctl("account", "add", "acme")
    os.kill(pid, 9)
    wait_until(lambda: relay.ctl("account", "status", check=False).returncode == 0
               and relay.pids("quota") != [pid], 20, "another quota")
    assert "acme" in relay.ctl("account", "list")
    sent = relay.send("a@src.test", ["b@dst.test"], b"Subject: x\r\n\r\nnobody's\r\n")
    assert sent in relay.ctl("queue", "list")


def test_B84_B85_bad_plans_keep_the_old_configuration(relay):
    with open(relay.path("plans.conf"), "w", encoding="utf-8") as f:
        f.write("plan small {\n messages = 10O\n}\n")
    assert "plans.conf:2: messages = 10O" in relay.ctl("reload", check=False).stderr + \
        (relay.wait_log(r"reload: .*plans.conf:2: messages = 10O").group(0))
    assert "small" in relay.ctl("plan", "list")
    with open(relay.path("plans.conf"), "w", encoding="utf-8") as f:
        f.write(PLANS + "plan second { }\n")
    relay.ctl("reload")
    relay.wait_log("2 plans read from")
    assert "second" in relay.ctl("plan", "list")
    if os.getuid() == 0:
        os.chmod(relay.path("plans.conf"), 0o666)
        relay.ctl("reload", check=False)
        relay.wait_log(r"reload: .*plans.conf.*writ")


def test_mynetworks_account_that_is_none(relay):
    """check and reload tell it; with the account it is sound."""
    with open(relay.path("main.cf"), "a", encoding="utf-8") as f:
        f.write("mynetworks_account = Own\n")
    told = "mynetworks_account = Own: There is no account own"
    checked = relay.ctl("check", check=False)
    assert checked.returncode == 1 and told in checked.stdout, checked.stdout
    reloaded = relay.ctl("reload", check=False)
    assert reloaded.returncode == 1 and told in reloaded.stderr, reloaded.stderr
    relay.ctl("account", "add", "own")
    assert "mynetworks_account =" not in relay.ctl("check")


def test_a_plan_that_accounts_have_is_taken_out(relay):
    """Told by check before, and by reload, status and the lists after."""
    relay.ctl("account", "add", "acme", "--plan", "small")
    relay.ctl("account", "add", "other")
    with open(relay.path("plans.conf"), "w", encoding="utf-8") as f:
        f.write("plan renamed { messages = 100 }\n")
    told = "1 account (acme) has plan small, which is not in"
    checked = relay.ctl("check", check=False)
    assert checked.returncode == 1 and told in checked.stdout
    reloaded = relay.ctl("reload", check=False)
    assert reloaded.returncode == 1 and told in reloaded.stderr
    relay.wait_log("account acme has plan small, which is not in .*its mail gets 451")
    assert "1 with a plan that is not in plans_file" in relay.ctl("status")
    assert "small (missing)" in relay.ctl("account", "list")
    assert "is not in" in relay.ctl("account", "show", "acme")
    relay.ctl("account", "set", "acme", "--plan", "renamed")
    assert "not in plans_file" not in relay.ctl("status")
    assert told not in relay.ctl("check", check=False).stdout
    relay.ctl("reload")


def test_accounts_off(tmp_path):
    with Postern(tmp_path) as p:
        assert p.pids("quota") == []
        done = p.ctl("account", "list", check=False)
        assert done.returncode == 1 and "accounts_enable = yes" in done.stderr
        assert not os.path.exists(p.path("data", "accounts"))
        with open(p.path("main.cf"), "a", encoding="utf-8") as f:
            f.write("accounts_enable = yes\n")
        with subprocess.Popen([os.path.join(BIN, "postern"), "-c", p.directory, "account", "list"],
                              stderr=subprocess.PIPE, text=True) as asking:
            assert select.select([asking.stderr], [], [], 30)[0], "it waits without a word"
            hint = asking.stderr.readline()
            asking.kill()
        assert "no answer from quota yet" in hint and "'postern reload'" in hint


def test_mistakes_are_told_plainly(relay):
    """What an operator mistypes ends with a status and a sentence that says what to do."""
    p = relay
    p.ctl("account", "add", "acme", "--plan", "small")
    for args, status, words in [
            (("account", "set", "acme"), 2, "say what to change"),
            (("grant", "delete", "acme", "x"), 2, "x is no number of a grant"),
            (("grant", "delete", "acme", "99"), 5, "There is no grant 99 in account acme"),
            (("domain", "delete", "acme", "z.test"), 5, "There is no domain or address z.test"),
            (("user", "list", "nobody"), 5, "nobody; 'postern account list' shows all"),
            (("user", "suspend", "nobody"), 5, "nobody; 'postern user list' shows all"),
            (("account", "import", "--usage", "all", "-"), 2, "give keep, replace or none"),
            (("domain", "list", "nobody"), 5, "There is no account nobody"),
            (("grant", "list", "nobody"), 5, "There is no account nobody"),
            (("usage", "show", "acme", "nobody"), 5, "There is no user nobody in account acme"),
            (("account", "set", "acme", "--ends", "2020-01-01"), 1, "that is over already"),
            (("usage", "report", "nobody"), 5, "there is no usage of an account nobody"),
            (("usage", "list", "acme"), 2, "'postern usage show' is about one account"),
            (("usage", "list", "--least", "x"), 2, "give a share in percent"),
            (("account", "import", "/nowhere"), 1, "/nowhere: cannot be read: No such file")]:
        done = p.ctl(*args, check=False)
        assert (done.returncode, words in done.stderr) == (status, True), (args, done.stderr)
    done = typed(p, '{"type":"user","login":"x"}\n', "account", "import", "-", check=False)
    assert done.returncode == 1 and "standard input:1: account: there is none" in done.stderr
    assert "nothing was imported" in done.stderr
    assert "account snapshot" in p.ctl("account", "--help")
    assert "refused" not in p.ctl("account", "show", "acme")
    # an import may say what a typing error must not
    typed(p, '{"type":"account","account":"acme","plan":"small","ends":1577836800}\n',
          "account", "import", "-")
    assert json.loads(p.ctl("account", "show", "acme", "--json"))["refused"] == \
        "the account's plan has ended"


def test_usage_of_all_accounts_with_the_fullest_first(tmp_path):
    """As an operator looks for who will call next, and as a program reads it."""
    (tmp_path / "plans.conf").write_text(PLANS + "plan volume { bytes = 500MB\n }\nplan free { }\n",
                                         encoding="utf-8")
    with Postern(tmp_path, accounts_enable="yes", plans_file="plans.conf", accounts_minfree="0",
                 scram_iterations="4096") as p:
        wait_until(lambda: p.ctl("account", "status", check=False).returncode == 0, 20, "quota")
        p.wait_log("plans read from")
        assert p.ctl("usage", "list") == ""
        for name, plan in (("a-idle", "small"), ("b-free", "free"), ("c-full", "small"),
                           ("d-volume", "volume"), ("e-granted", "small")):
            p.ctl("account", "add", name, "--plan", plan)
        p.ctl("grant", "add", "e-granted", "300")
        running = json.loads(p.ctl("usage", "show", "c-full", "--json"))
        records = [{"type": "usage", "owner": owner, "start": running["start"],
                    "end": running["end"], "counts": [n, size, n, size, 0, 0, 0, 0]}
                   for owner, n, size in (("c-full", 97, 9700), ("d-volume", 40, 400_000_000),
                                          ("e-granted", 100, 5000), ("b-free", 7, 700))]
        typed(p, "".join(json.dumps(r) + "\n" for r in records), "account", "import", "-")
        rows = [l.split("\t") for l in p.ctl("usage", "list").splitlines()]
        assert rows[0][:7] == ["ACCOUNT", "PLAN", "USED", "MESSAGES", "OF", "VOLUME", "OF"]
        assert [r[:7] for r in rows[1:]] == [
            ["c-full", "small", "97%", "97", "100", "9.7 KB", "-"],
            ["d-volume", "volume", "80%", "40", "-", "400.0 MB", "500.0 MB"],
            ["e-granted", "small", "25%", "100", "400", "5.0 KB", "-"],
            ["b-free", "free", "-", "7", "-", "700 bytes", "-"],
            ["a-idle", "small", "0%", "0", "100", "0 bytes", "-"]]
        assert all(r[7].endswith("00:00 UTC") for r in rows[1:])
        least = p.ctl("usage", "list", "--least", "80", "--json").splitlines()
        assert [json.loads(l)["owner"] for l in least] == ["c-full", "d-volume"]
        # the same as of one account
        assert json.loads(least[0]) == json.loads(p.ctl("usage", "show", "c-full", "--json"))
        shown = p.ctl("usage", "show", "d-volume")
        for line in ("percent: +80%", "limit: +none", r"limit_bytes: +500000000 \(500.0 MB\)"):
            assert re.search(f"^{line}$", shown, re.M), shown
        # a report without lines is a table, too
        report = p.ctl("usage", "report", "--month", "1999-01")
        assert report.startswith("owner,start,end,") and len(report.splitlines()) == 1
        p.ctl("account", "set", "c-full", "--ends", "2099-01-01")
        p.ctl("account", "set", "c-full", "--ends", "")
        assert re.search("^ends: +-$", p.ctl("account", "show", "c-full"), re.M)


def test_usage_list_of_more_accounts_than_one_turn_has(relay):
    text = "".join(json.dumps({"type": "account", "account": f"a{i}", "plan": "small"}) + "\n"
                   for i in range(1203))
    typed(relay, text, "account", "import", "-")
    owners = [json.loads(l)["owner"] for l in relay.ctl("usage", "list", "--json").splitlines()]
    assert sorted(owners) == sorted(f"a{i}" for i in range(1203))


def test_a_password_has_at_most_511_bytes(relay):
    relay.ctl("account", "add", "acme")
    typed(relay, 511 * "x" + "\r\n", "user", "add", "longest", "acme")
    for size in (512, 513, 1024, 2000):
        done = typed(relay, size * "x" + "\n", "user", "add", "longer", "acme", check=False)
        assert done.returncode and "one line of at most 511 bytes" in done.stderr, size


IDLE = """plan big { size = 90MB }
plan stop { messages = 10
 at_limit = block
 overage = block:5 }
plan free { overage = block:5 }
plan small_ones { byte_minimum = 10KB }
plan unguarded { spike_action = hold }
plan endless { period = none
 period_report = yes }
plan gift { credit_minimum = 2GB }
plan two { user_rate = {5/day, 6/day} }
plan sound { messages = 10
 bytes = 1GB
 byte_minimum = 10KB
 at_limit = surcharge
 overage = block:5
 size = 50MB
 spike_factor = 10
 spike_minimum = 100
 spike_action = hold
 period_report = yes
 credit_unit = 500MB
 credit_minimum = 2GB
 account_rate = {5/day, 6/month} }
"""


def test_check_and_reload_name_settings_of_plans_without_effect(relay):
    told = [("big", "set message_size_limit = 90000000"),
            ("stop", "overage has no effect with at_limit = block"),
            ("free", "overage has no effect without a limit"), ("small_ones", "byte_minimum"),
            ("unguarded", "without spike_factor"), ("endless", "period_report"),
            ("gift", "credit_minimum"), ("two", "user_rate has two limits in one unit")]
    assert "plans.conf: plan" not in relay.ctl("check", check=False).stdout
    with open(relay.path("plans.conf"), "w", encoding="utf-8") as f:
        f.write(PLANS + IDLE)
    lines = [l for l in relay.ctl("check", check=False).stdout.splitlines()
             if re.match("warning: .*plans.conf: plan ", l)]
    assert len(lines) == len(told) and "sound" not in " ".join(lines)
    for line, (plan, words) in zip(lines, told):
        assert f"plans.conf: plan {plan}: " in line and words in line
    reload = relay.ctl("reload", check=False)
    assert reload.returncode == 0
    for plan, words in told:
        assert re.search(f"^postern: warning: .*plan {plan}: .*{words}", reload.stderr, re.M)


POOLS = """source one { ipv4 = 127.0.0.1 helo = one.relay.test }
pool default { sources = {one} }
"""


def test_check_and_reload_name_pools_that_are_not_there(relay):
    """Of plans and of accounts; 'account set' says it at once."""
    def told(done):
        return sorted(re.findall(r"warning: (.*): source = (\w+): ", done.stdout + done.stderr))
    with open(relay.path("sources.conf"), "w", encoding="utf-8") as f:
        f.write(POOLS)
    with open(relay.path("plans.conf"), "w", encoding="utf-8") as f:
        f.write(PLANS + "plan away { source = gone }\nplan here { source = default }\n")
    with open(relay.path("main.cf"), "a", encoding="utf-8") as f:
        f.write(f"source_config_file = {relay.path('sources.conf')}\n")
    reload = relay.ctl("reload", check=False)
    assert reload.returncode == 0, reload
    plan = (relay.path("plans.conf") + ": plan away", "gone")
    assert told(reload) == [plan]
    relay.wait_log("plan away: source = gone: .*sources.conf has no pool gone")
    relay.ctl("account", "add", "acme", "--plan", "here")
    set_to = relay.ctl("account", "set", "acme", "--plan", "away", check=False)
    assert set_to.returncode == 0
    assert "warning: account acme, by its plan away: " in set_to.stderr
    relay.ctl("account", "set", "acme", "--source", "lost", check=False)
    assert told(relay.ctl("check", check=False)) == [plan, ("1 account (acme)", "lost")]
    shown = relay.ctl("plan", "show", "away", check=False)
    assert shown.returncode == 0 and told(shown) == [("plan away", "gone")]
