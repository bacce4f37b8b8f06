"""Rules and operators that slow down or suspend one sender's mail at one destination, while
that of the others goes on."""
import os
import time

import pytest

from postern import wait_until
from qmgr_peers import checksum
from test_qmgr_operator import Control
from test_shaping import MAIL, refusal, rules, show
from test_shaping_memory import Again, place  # noqa: F401 pylint: disable=unused-import

RULES = """
default { start_rate = "100/s" start_connections = 3 connections = 4 }
rule account-away { text = 'complaints about account' scope = "account" action = "suspend" for = "2h"
  outcome = "retry" matches = {"451 complaints about account"} }
rule account-slow { text = 'account too fast' scope = "account" dimension = "rate" action = "set"
  value = "1/s" outcome = "retry" matches = {"451 account too fast"} }
rule domain-away { text = 'unusual rate for domain' scope = "dkim" action = "suspend" for = "1h"
  outcome = "retry" matches = {"421 unusual rate for domain"} }
"""


@pytest.fixture
def c():
    control = Control()
    rules(control, RULES)
    control.q.wait_log("providers.conf: 0 providers, 3 rules")
    yield control
    control.stop()


def test_a_rule_about_an_account_leaves_the_others_alone(c):
    q = c.q
    bad = q.commit(["a@d.test"], account="shop")
    q.resolved()
    q.result(q.job(), scope=1, outcomes=refusal(451, "complaints about account", MAIL))
    q.wait_log("shaping mx.d.test: account shop suspended for 7200.0s, rule account-away")
    q.wait_log(rf"{bad}: .*status=deferred \(delivery temporarily suspended for account shop: rule ")
    good = q.commit(["b@d.test"], account="bank")
    job = q.job()
    assert job.id == good.encode()
    q.result(job)
    again = q.commit(["c@d.test"], account="shop")
    q.wait_log(rf"{again}: .*status=deferred \(delivery temporarily suspended for account shop")
    lane = show(c)
    assert not lane["suspended"] and lane["rate"] >= 100
    (brake,) = lane["brakes"]
    assert (brake["kind"], brake["who"], brake["suspended"]) == ("account", "shop", True)
    assert "a.conf:3" in brake["reason"] and 7000 < brake["suspended_for"] <= 7200
    why = c.ask(request="shaping.why", id=again)[0]
    assert why["brake"]["who"] == "shop" and "account shop" in why["because"]
    elsewhere = q.commit(["a@e.test"], account="shop")
    q.resolved()
    assert q.job().id == elsewhere.encode()


def test_a_rule_about_an_account_slows_it(c):
    q = c.q
    first = q.commit(["a@d.test"], account="shop")
    q.resolved()
    q.result(q.job(), scope=1, outcomes=refusal(451, "account too fast", MAIL))
    q.wait_log("shaping mx.d.test: account shop slowed to 1.000/s, rule account-slow")
    good = q.commit(["b@d.test"], account="bank")
    job = q.job()
    assert job.id == good.encode(), first
    q.result(job)
    job = q.job()  # a second later, more or less
    assert job.id == first.encode()
    q.result(job)
    assert show(c)["brakes"][0]["rate"] == 1


def test_a_rule_about_a_signing_domain(c):
    """The domain counts, whoever's account it is."""
    q = c.q
    q.commit(["a@d.test"], account="one", signer="news.test")
    q.resolved()
    q.result(q.job(), scope=1, outcomes=refusal(421, "unusual rate for domain", MAIL))
    q.wait_log("shaping mx.d.test: domain news.test suspended for 3600.0s, rule domain-away")
    id = q.commit(["b@d.test"], account="two", signer="news.test")
    q.wait_log(rf"{id}: .*status=deferred \(delivery temporarily suspended for domain news.test")
    good = q.commit(["c@d.test"], account="one", signer="bank.test")
    assert q.job().id == good.encode()


def test_an_account_is_suspended_by_hand_and_resumed(c):
    q = c.q
    q.commit(["a@d.test"], account="bank")
    q.resolved()
    q.result(q.job())
    done = c.ask(request="shaping.act", action="suspend", destination="d.test", account="shop",
                 seconds=3600, reason="under review")
    assert done[0]["who"] == "shop"
    id = q.commit(["b@d.test"], account="shop")
    q.wait_log(rf"{id}: .*suspended for account shop: by the operator: under review")
    assert show(c)["brakes"][0]["reason"] == "under review"
    c.ask(request="shaping.act", action="resume", destination="d.test", account="shop")
    assert q.job().id == id.encode()
    error = c.ask(request="shaping.act", action="resume", destination="d.test", account="shop")[-1]["error"]
    assert error.startswith("There is no suspension of shop")
    error = c.ask(request="shaping.act", action="set", destination="d.test", account="shop", rate=3)[-1]["error"]
    assert "suspended and resumed" in error


def test_everywhere(c):
    q = c.q
    c.ask(request="shaping.act", action="suspend", destination="all", account="shop")
    id = q.commit(["b@d.test"], account="shop")
    q.resolved()
    q.wait_log(rf"{id}: .*suspended for account shop")


def test_suspensions_by_hand_outlive_qmgr_with_their_reasons(place):
    first = Again(place)
    q = first.q
    q.commit(["a@d.test"], account="bank")
    q.resolved()
    q.result(q.job())
    first.ask(request="shaping.act", action="suspend", destination="d.test", account="shop", seconds=3600,
              reason="under review")
    first.ask(request="shaping.act", action="suspend", destination="d.test", seconds=3600, reason="delisting")
    first.end()
    second = Again(place)
    q = second.q
    id = q.commit(["b@d.test"], account="bank")
    q.resolved()
    q.wait_log(rf"{id}: .*suspended: by the operator: delisting")
    lane = show(second)
    assert lane["reason"] == "delisting" and lane["brakes"][0]["reason"] == "under review"
    assert 3000 < lane["brakes"][0]["suspended_for"] <= 3600
    second.end()


def test_a_damaged_file_of_suspensions_is_kept_aside(place):
    first = Again(place)
    first.ask(request="shaping.act", action="suspend", destination="all", account="shop", reason="x")
    first.end()
    kept = os.path.join(place, "spool", "shaping.brakes")
    with open(kept, "r+b") as f:
        text = f.read()
        f.seek(0)
        f.write(text.replace(b"shop", b"shoq"))
    second = Again(place)
    second.q.wait_log("shaping: suspensions of accounts and domains are forgotten: shaping.brakes is damaged")
    assert os.path.exists(kept + ".damaged")
    second.end()


PROVIDER = """
default { start_rate = "10000/s" start_connections = 5 connections = 5 }
provider goog { mx = {".goog.test"} }
domain own.test { connections = 3 }
site b.goog.test { connections = 3 }
"""
HELD = r"{}: .*suspended for {} {}: by the operator: abuse"


def at(host, last):
    return dict(site=host, targets=[dict(host=host, address=bytes([127, 9, 9, last]), port=25, preference=10)])


def sender(c, action, destination="goog", **more):
    return c.ask(request="shaping.act", action=action, destination=destination, reason="abuse", **more)


def test_before_any_mail_at_a_provider_with_its_sections(c):
    """The name stands for all that it covers, now and later."""
    q = c.q
    rules(c, PROVIDER)
    q.wait_log("providers.conf: 1 providers")
    done = sender(c, "suspend", domain="spam.test", seconds=3600)
    assert (done[0]["who"], done[0]["at"]) == ("spam.test", "goog")
    for domain, host, last in (("g.test", "a.goog.test", 1), ("own.test", "a.goog.test", 1), ("w.test", "b.goog.test", 2)):
        id = q.commit([f"a@{domain}"], sender="x@spam.test")
        q.resolved(**at(host, last))
        q.wait_log(HELD.format(id, "domain", "spam.test"))
        why = c.ask(request="shaping.why", id=id)[0]
        assert why["state"] == "sender_suspended" and why["brake"]["at"] == "goog"
        shown = c.ask(request="shaping.show", destination=domain)[0]["brakes"]
        assert [(b["who"], b["at"]) for b in shown] == [("spam.test", "goog")], domain
        good = q.commit([f"a@{domain}"], sender="x@good.test")
        job = q.job()
        assert job.id == good.encode()
        q.result(job)
    elsewhere = q.commit(["a@e.test"], sender="x@spam.test")
    q.resolved()
    job = q.job()
    assert job.id == elsewhere.encode()
    q.result(job)
    error = sender(c, "resume", "w.test", domain="spam.test")[-1]["error"]
    assert "suspended by hand at goog: 'postern shaping resume goog --domain spam.test' ends that" in error
    assert "error" not in sender(c, "resume", domain="spam.test")[-1]
    assert len({q.job().id for _ in range(3)}) == 3


def test_a_section_that_comes_later(c):
    q = c.q
    q.commit(["a@d.test"], account="bank")
    q.resolved(**at("a.goog.test", 1))
    q.result(q.job())
    sender(c, "suspend", "a.goog.test", account="shop")
    rules(c, PROVIDER + "domain d.test { connections = 2 }\n")
    q.wait_log("providers.conf: 1 providers")
    id = q.commit(["a@d.test"], account="shop")
    q.wait_log(HELD.format(id, "account", "shop"))


def test_what_a_rule_slows_and_the_operator_suspends_leaves_its_line(c):
    q = c.q
    ids = [q.commit(["a@d.test"], account="shop")]
    q.resolved()
    q.result(q.job(), scope=1, outcomes=refusal(451, "account too fast", MAIL))
    q.wait_log("account shop slowed to 1.000/s")
    ids += [q.commit(["a@d.test"], account="shop") for _ in range(20)]
    sender(c, "suspend", "d.test", account="shop")
    began = time.monotonic()
    wait_until(lambda: q.count(HELD.format("", "account", "shop")) == len(ids), 30, "all of it deferred")
    assert time.monotonic() - began < 5  # without waiting for tokens, one a second


def test_several_places_of_one_sender(c):
    q = c.q
    for name in ("d.test", "e.test", "f.test"):
        sender(c, "suspend", name, account="shop")
    assert "error" not in sender(c, "resume", "E.test", account="shop")[-1]
    for domain, held in (("d.test", True), ("e.test", False), ("f.test", True)):
        id = q.commit([f"a@{domain}"], account="shop")
        q.resolved()
        if held:
            q.wait_log(HELD.format(id, "account", "shop"))
        else:
            assert q.job().id == id.encode()
    assert sender(c, "suspend", "gmial", account="shop")[-1]["error"].startswith("gmial is no provider")


def test_they_outlive_qmgr_and_a_file_of_before_counts(place):
    """Before, such a suspension was of the servers that the name led to then."""
    first = Again(place)
    sender(first, "suspend", "d.test", account="shop")
    first.end()
    kept = os.path.join(place, "spool", "shaping.brakes")
    with open(kept, "rb") as f:
        text = f.read()
    assert b'"place":"called d.test"' in text
    text = text[:text.rindex(b"sum ")].replace(b"called d.test", b"servers mx.d.test").replace(
        b'"name":"d.test"', b'"name":"mx.d.test"')
    with open(kept, "wb") as f:
        f.write(text + b"sum %016x\n" % checksum(text))
    second = Again(place)
    id = second.q.commit(["a@d.test"], account="shop")
    second.q.resolved()
    second.q.wait_log(HELD.format(id, "account", "shop"))
    second.end()


@pytest.mark.parametrize("name", ["bücher.test", "Bu\u0308cher.TEST", "\u2603.bücher.test", "xn--bcher-kva.test"])
def test_a_suspended_domain_in_every_spelling(c, name):
    q = c.q
    sender(c, "suspend", "all", domain="bücher.test")
    ids = [q.commit(["a@d.test"], sender="x@other.test", signer=name)]
    q.resolved()
    ids.append(q.commit(["b@d.test"], sender=f"x@{name}"))
    for id in ids:
        q.wait_log(HELD.format(id, "domain", "xn--bcher-kva.test"))


@pytest.mark.parametrize("where", ["all", "goog.test"])
def test_resume_of_a_domain_below_the_one_that_is_suspended(c, where):
    """It says what holds its mail, and the command that ends that."""
    sender(c, "suspend", where, domain="spam.test")
    q = c.q
    id = q.commit(["a@goog.test"], sender="x@a.b.spam.test")
    q.resolved(**at("goog.test", 1))
    q.wait_log(HELD.format(id, "domain", "spam.test"))
    error = sender(c, "resume", "goog.test", domain="a.b.spam.test")[-1]["error"]
    place = "all destinations" if where == "all" else where
    assert error == (f"a.b.spam.test is suspended by hand at {place}, with all of spam.test: "
                     f"'postern shaping resume {where} --domain spam.test' ends that.")
    assert "error" not in sender(c, "resume", where, domain="spam.test")[-1]
    assert q.job().id == id.encode()


def test_resume_at_one_place_of_who_is_suspended_everywhere(c):
    sender(c, "suspend", "all", account="shop")
    c.q.commit(["a@d.test"], account="bank")
    c.q.resolved()
    c.q.result(c.q.job())
    error = sender(c, "resume", "d.test", account="shop")[-1]["error"]
    assert error == ("shop is suspended by hand at all destinations: "
                     "'postern shaping resume all --account shop' ends that.")


def test_a_domain_is_suspended_with_all_below_it(c):
    """By the name that signs, or where none does by the envelope's; what is beside it goes on."""
    q = c.q
    done = sender(c, "suspend", "all", domain="Spam.Test")
    assert done[0]["who"] == "spam.test"
    held = [q.commit([f"a{n}@d.test"], sender=f"x@{name}", **more)
            for n, (name, more) in enumerate([("spam.test", {}), ("a.b.spam.test", {}),
                                              ("other.test", dict(signer="news.spam.test")),
                                              ("News.SPAM.test", dict(account="shop"))])]
    q.resolved()
    for id in held:
        q.wait_log(HELD.format(id, "domain", "spam.test"))
    for n, name in enumerate(["test", "notspam.test", "spam.test.example"]):
        good = q.commit([f"b{n}@d.test"], sender=f"x@{name}")
        job = q.job()
        assert job.id == good.encode()
        q.result(job)
    assert sender(c, "suspend", "all", domain="a.spam.test")[0]["who"] == "a.spam.test"
    sender(c, "resume", "all", domain="spam.test")
    below = q.commit(["c@d.test"], sender="x@b.a.spam.test")
    q.wait_log(HELD.format(below, "domain", r"a\.spam\.test"))
    beside = q.commit(["c@d.test"], sender="x@b.spam.test")
    went = []
    while beside not in went:
        job = q.job()
        went.append(job.id.decode())
        q.result(job)
    assert below not in went
