"""What an operator does that is mostly a mistake is done, and said at once."""
import pytest
from accounts_rig import Quota, Refused

SOURCES = """source one { ipv4 = 192.0.2.1 helo = one.relay.test }
source two { ipv4 = 192.0.2.2 helo = two.relay.test }
pool default { sources = {one} }
pool good { sources = {two} }
"""
PLANS = "plan p { source = good }\nplan q { source = lost }\n"


@pytest.fixture
def quota():
    q = Quota(config={"source_config_file": "sources.conf", "plans_file": "plans.conf"})
    yield q
    q.stop()


def warnings(quota, request, **members):
    return quota.ask(request, **members)[1].get("warnings", [])


def test_a_domain_of_two_accounts(quota):
    for name, parent in (("one", ""), ("two", ""), ("below", "one")):
        quota.ask("account.add", account=name, parent=parent)
    assert warnings(quota, "domain.add", account="one", domain="a.test") == []
    assert warnings(quota, "domain.add", account="one", domain="A.TEST") == []
    # those above and below may share it
    assert warnings(quota, "domain.add", account="below", domain="news@a.test") == []
    assert warnings(quota, "domain.add", account="two", domain="a.test") == [
        "a.test of account two: account one owns a.test, too: each may send as the other"]
    quota.ask("domain.delete", account="two", domain="a.test")
    assert warnings(quota, "domain.add", account="two", domain="sales@a.test") == [
        "sales@a.test of account two: account one owns a.test"]
    quota.ask("domain.delete", account="one", domain="a.test")
    assert warnings(quota, "domain.add", account="two", domain="news@a.test") == [
        "news@a.test of account two: account below owns news@a.test, too: "
        "each may send as the other"]
    # an account that is gone owns nothing
    quota.ask("account.delete", account="two")
    quota.ask("account.delete", account="below")
    quota.ask("account.add", account="three")
    assert warnings(quota, "domain.add", account="three", domain="a.test") == []
    # and a restart knows all of it
    q = quota
    q.kill()
    q.__dict__.update(q.again().__dict__)
    assert warnings(q, "domain.add", account="one", domain="a.test") == [
        "a.test of account one: account three owns a.test, too: each may send as the other"]


def test_import_tells_as_well(quota):
    records = [{"type": "account", "account": "a", "source": "lost"},
               {"type": "account", "account": "b"},
               {"type": "domain", "account": "a", "domain": "x.test"},
               {"type": "domain", "account": "b", "domain": "x.test"},
               {"type": "domain", "account": "b", "domain": "y.test"}]
    quota.master.table("source_config_file", 0, "sources.conf", SOURCES)
    quota.master.table("plans_file", 0, "plans.conf", PLANS)
    quota.master.wait_log("2 plans read from")
    _, last = quota.ask("import", records=records)
    assert last["records"] == 5
    assert last["warnings"][0].startswith("account a: sources.conf has no pool lost")
    assert [w.split(":")[0] for w in last["warnings"][1:]] == [
        "x.test of account a", "x.test of account b"]


def test_a_pool_that_sources_conf_does_not_have(quota):
    quota.master.table("source_config_file", 0, "sources.conf", SOURCES)
    quota.master.table("plans_file", 0, "plans.conf", PLANS)
    quota.master.wait_log("plan q: source = lost: sources.conf has no pool lost")
    assert "plan p: source" not in quota.master.log()
    assert warnings(quota, "account.add", account="a", source="good") == []
    assert warnings(quota, "account.set", account="a", source="bad") == [
        "account a: sources.conf has no pool bad: the mail goes from the default one"]
    assert warnings(quota, "account.set", account="a", note="x") == []
    # the pool comes: nothing to tell
    quota.master.table("source_config_file", 0, "sources.conf", SOURCES +
                       "pool bad { sources = {one, two} }\n")
    quota.ask("account.list")
    assert warnings(quota, "account.set", account="a", source="bad") == []


def test_a_plan_with_a_pool_that_is_not_there(quota):
    """Whoever gives it to an account, or looks at it, is told."""
    quota.master.table("source_config_file", 0, "sources.conf", SOURCES)
    quota.master.table("plans_file", 0, "plans.conf", PLANS)
    quota.master.wait_log("plan q: source = lost")
    lost = "sources.conf has no pool lost: the mail goes from the default one"
    assert warnings(quota, "account.add", account="a", plan="p") == []
    assert warnings(quota, "account.set", account="a", plan="q") == [
        f"account a, by its plan q: {lost}"]
    assert warnings(quota, "account.set", account="a", plan="q", source="good") == []
    assert warnings(quota, "plan.show", plan="p") == []
    assert warnings(quota, "plan.show", plan="q") == warnings(quota, "plan.list") == [
        f"plan q: source = lost: {lost}"]
    assert {"source": "good", "accounts": 1, "names": ["a"]} in quota.ask("plan.used")[0]


def test_without_sources_conf_there_are_no_pools():
    q = Quota()
    try:
        (told,) = warnings(q, "account.add", account="a", source="any")
        assert "source_config_file is not set" in told
    finally:
        q.stop()


@pytest.mark.parametrize("reference", ["@r.test:a@b.test", "a", "a@", "@b.test", "a@b c", "a@-b.test",
                                       "a b@c.test", "<a@b.test>", "a@b@c.test", "a@b..test"])
def test_a_reference_that_cannot_be_an_address(quota, reference):
    with pytest.raises(Refused, match="reference: give a mail address"):
        quota.ask("account.add", account="a", reference=reference)
