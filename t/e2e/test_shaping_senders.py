"""Rules and operators that slow down or suspend one sender's mail at one destination, while
that of the others goes on."""
import os

import pytest

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
