"""Mail that stands in line while its destination becomes another one: other servers in DNS, other
TLS, another place in providers.conf."""
import re
import time

import pytest

import faults as fault_points
from faults import Faults
from postern import wait_until
from qmgr_peers import TEMPORARY
from test_qmgr_operator import Control
from test_shaping import rules
from test_shaping_brakes import later
from test_shaping_memory import place  # noqa: F401 pylint: disable=unused-import
from test_shaping_why import command

pytestmark = pytest.mark.skipif(not fault_points.available(), reason="built without fault points")

ONE = "default { start_connections = 1 connections = 1 start_rate = \"10000/s\" }\n"
LONG = 10 ** 6
MANY = 4500  # more than is moved in one turn


def start(place, **config):
    faults = Faults(place)
    control = Control(environment=faults.environment, config=config)
    control.faults = faults
    control.sets = 0
    reload(control, ONE)
    return control


@pytest.fixture
def c(place):
    control = start(place, destination_recipient_limit="1")
    yield control
    control.stop()


@pytest.fixture
def several(place):
    """Recipients of one message go together."""
    control = start(place)
    yield control
    control.stop()


def reload(c, text):
    rules(c, text)
    c.sets += 1
    wait_until(lambda: c.q.log().count("providers.conf: ") == c.sets, 10, "the rules")


def at(host, last=9):
    return dict(site=host, targets=[dict(host=host, address=bytes([127, 8, 8, last]), port=25, preference=10)])


def line(c, count=4, ttl=1, domain="d.test", **where):
    """So many in line, the first of them under way; IDs in their order, and its job."""
    ids = []
    for n in range(count):
        ids.append(c.q.commit([f"a{n}@{domain}"]))
        if n == 0:
            c.q.resolved(ttl=ttl, **(where or at("old.test")))
            job = c.q.job()
    return ids, job


def host(job):
    (target,) = job.targets
    return target.host


def lanes(c, **ask):
    return {x["destination"]: (x["queued"], x["in_flight"])
            for x in c.ask(**{"request": "shaping.list", **ask}) if "destination" in x}


def deliver(c, job, count):
    """That one and those after it, one after the other; IDs and hosts."""
    got = []
    for _ in range(count):
        c.q.result(job)
        job = c.q.job()
        got.append((job.id.decode(), host(job)))
    c.q.result(job)
    return got


def test_a_line_follows_its_MX_in_order_with_one_lookup(c):
    """The old server may say 550 by now."""
    ids, job = line(c)
    later(c, 2)
    c.q.result(job)
    other = c.q.commit(["a@e.test"])  # goes on while d.test is looked up
    asked = [c.q.resolve.expect("ipc_resolve_request") for _ in range(2)]
    assert [a.recipient.split(b"@")[1] for a in asked] == [b"d.test", b"e.test"]
    reply(c, asked[1], **at("mx.e.test", 7))
    job = c.q.job()
    assert (job.id.decode(), host(job)) == (other, b"mx.e.test")
    why = c.ask(request="shaping.why", id=ids[1])[0]
    assert why["state"] == "routing" and "looked up in DNS again" in why["waits"]
    assert lanes(c)["old.test"] == (3, 0)
    c.q.result(job)
    reply(c, asked[0], ttl=LONG, **at("new.test", 10))
    job = c.q.job()
    assert [(job.id.decode(), host(job))] + deliver(c, job, 2) == [(id, b"new.test") for id in ids[1:]]


def reply(c, ask, **fields):
    values = dict(tag=ask.tag, status=0, scope=0, ttl=300, transport=0, nexthop=ask.recipient.split(b"@")[1])
    c.q.resolve.send("ipc_resolve_reply", **{**values, **fields})


def test_the_same_servers_again_keep_the_line(c):
    ids, job = line(c)
    for id in ids[1:]:
        later(c, 2)
        c.q.result(job)
        c.q.resolved(ttl=1, **at("old.test"))
        job = c.q.job()
        assert (job.id.decode(), host(job)) == (id, b"old.test")
    c.q.result(job)


def test_other_addresses_of_the_same_host(c):
    ids, job = line(c)
    later(c, 2)
    c.q.result(job)
    c.q.resolved(ttl=LONG, **at("old.test", 77))
    job = c.q.job()
    assert job.id.decode() == ids[1] and job.targets[0].address == bytes([127, 8, 8, 77])
    assert [x for x, _ in deliver(c, job, 2)] == ids[2:]


def test_a_line_leaves_a_server_that_hangs(c):
    """All of its connections stand still; a message that comes later learns of the new server."""
    ids, hangs = line(c, ttl=1)
    later(c, 2)
    fresh = c.q.commit(["fresh@d.test"])
    c.q.resolved(ttl=LONG, **at("new.test", 10))
    job = c.q.job()
    wait_until(lambda: lanes(c) == {"old.test": (0, 1), "new.test": (3, 1)}, 10, "the line at the new server")
    got = [(job.id.decode(), host(job))] + deliver(c, job, 3)
    assert sorted(got) == sorted((id, b"new.test") for id in ids[1:] + [fresh])
    assert [id for id, _ in got if id != fresh] == ids[1:]
    shown = [x["destination"] for x in c.ask(request="shaping.show", destination="d.test")[:-1]]
    assert sorted(shown) == ["new.test", "old.test"]  # what is under way there is not hidden
    c.q.result(hangs)


def test_a_lookup_that_fails_sends_nothing_to_the_old_server(c):
    ids, job = line(c)
    later(c, 2)
    c.q.result(job)
    c.q.resolved(status=TEMPORARY, ttl=60, code=451, enhanced="4.4.3", text="no answer from DNS", targets=[], site="")
    for id in ids[1:]:
        c.q.wait_log(rf"{id}: .*status=deferred \(.*no answer from DNS")
    later(c, 700)
    c.q.resolved(ttl=LONG, **at("new.test", 10))
    job = c.q.job()
    assert host(job) == b"new.test"
    assert sorted([job.id.decode()] + [id for id, _ in deliver(c, job, 2)]) == sorted(ids[1:])


def test_what_a_domain_asks_of_TLS_now(c):
    """Its policy came while the mail was in line."""
    ids, job = line(c, ttl=1)
    assert not job.tls
    later(c, 2)
    c.q.result(job)
    c.q.resolved(ttl=LONG, tls=[dict(host="old.test", level=4, origin=1)], **at("old.test"))
    for id in ids[1:]:
        job = c.q.job()
        assert job.id.decode() == id and [r.host for r in job.tls] == [b"old.test"]
        c.q.result(job)


@pytest.mark.parametrize("section", ["provider p { mx = {\"old.test\"} ", "domain d.test { ", "site old.test { "])
def test_a_line_moves_to_a_new_section(c, section):
    """Its limits hold for the line, it can be suspended by its name, and nothing is hidden."""
    name = section.split()[1]
    ids, job = line(c, ttl=LONG)
    reload(c, ONE + section + "connections = 1 start_connections = 1 }\n")
    second = c.q.job()
    assert second.id.decode() == ids[1]
    wait_until(lambda: lanes(c) == {"old.test": (0, 1), name: (2, 1)}, 10, "the line in its section")
    for asked in {name, "d.test"}:
        shown = {x["destination"]: x["in_flight"]
                 for x in c.ask(request="shaping.show", destination=asked)[:-1]}
        assert shown == {"old.test": 1, name: 1}, asked
    c.ask(request="shaping.act", action="suspend", destination=name, reason="stop")
    for id in ids[2:]:
        c.q.wait_log(rf"{id}: .*status=deferred \(delivery temporarily suspended: by the operator: stop")
    c.q.result(job)
    c.q.result(second)
    c.ask(request="shaping.act", action="resume", destination=name)
    job = c.q.job()
    assert sorted([job.id.decode()] + [id for id, _ in deliver(c, job, 1)]) == sorted(ids[2:])


def test_a_line_moves_back_when_the_section_is_gone(c):
    section = ONE + "provider p { mx = {\"old.test\"} connections = 1 start_connections = 1 }\n"
    reload(c, section)
    ids, job = line(c, ttl=LONG)
    assert lanes(c) == {"p": (3, 1)}
    reload(c, ONE)
    second = c.q.job()
    wait_until(lambda: lanes(c) == {"p": (0, 1), "old.test": (2, 1)}, 10, "the line")
    c.q.result(job)
    assert [id for id, _ in deliver(c, second, 2)] == ids[2:]


def test_domains_of_one_server_keep_their_places(c):
    """One has a section of its own, the other has not: neither's route moves the other's mail."""
    reload(c, ONE + "domain own.test { connections = 1 start_connections = 1 }\n")
    _, own = line(c, 3, ttl=1, domain="own.test", **at("mx.test"))
    _, plain = line(c, 3, ttl=1, domain="plain.test", **at("mx.test"))
    assert lanes(c) == {"own.test": (2, 1), "mx.test": (2, 1)}
    later(c, 2)
    for job in (own, plain):
        c.q.result(job)
        c.q.resolved(ttl=LONG, **at("mx.test"))
        c.q.job()
    assert lanes(c) == {"own.test": (1, 1), "mx.test": (1, 1)}


def test_a_long_line_moves_in_order(c):
    id = c.q.commit([f"a{n}@d.test" for n in range(MANY)])
    c.q.resolved(ttl=LONG, **at("old.test"))
    first = c.q.job()
    assert lanes(c) == {"old.test": (MANY - 1, 1)}
    reload(c, ONE + "provider p { mx = {\"old.test\"} connections = 1 start_connections = 1 }\n")
    job = c.q.job()
    wait_until(lambda: lanes(c).get("p") == (MANY - 2, 1), 20, "the line")
    c.q.result(first)
    for n in range(1, 30):
        assert [r.address for r in job.recipients] == [b"a%d@d.test" % n], id
        c.q.result(job)
        job = c.q.job()


def test_a_turn_that_takes_longer_than_the_route_holds(c):
    """What was looked up for a message counts when its turn comes; else it would never go."""
    first, job = line(c, 2, ttl=1, domain="d.test", **at("mx.test"))
    later(c, 2)
    c.q.commit(["b0@e.test"], sender="x@other.test")
    c.q.resolved(ttl=LONG, **at("mx.test"))
    c.q.result(job)  # d.test is asked about; meanwhile the other sender's mail has the connection
    other = c.q.job()
    assert other.recipients[0].address == b"b0@e.test"
    c.q.resolved(ttl=1, **at("mx.test"))
    wait_until(lambda: c.ask(request="shaping.why", id=first[1])[0]["state"] != "routing", 10, "its place in line")
    later(c, 2)
    c.q.result(other)
    job = c.q.job()
    assert job.id.decode() == first[1]
    c.q.result(job)


# ---- whose line is gone through ------------------------------------------------------------------

def asked_next(c, recipient):
    """What is asked next is about that new recipient: nothing was asked before it."""
    c.q.commit([recipient], sender="x@other.test")
    ask = c.q.resolve.expect("ipc_resolve_request")
    assert ask.recipient == recipient.encode()


def two_lines(c):
    """Lines of two domains behind one delivery that hangs; IDs of each."""
    first, hangs = line(c, 4, ttl=LONG, domain="stays.test", **at("old.test"))
    going = [c.q.commit([f"b{n}@goes.test"]) for n in range(3)]
    c.q.resolved(ttl=1, **at("old.test"))
    wait_until(lambda: lanes(c) == {"old.test": (6, 1)}, 10, "both lines")
    return first[1:], going, hangs


def test_a_domain_that_moves_takes_its_own_line_and_no_other(c):
    """The others stay where they are, in their order, and nothing is looked up for them."""
    stay, go, hangs = two_lines(c)
    later(c, 2)
    fresh = c.q.commit(["fresh@goes.test"])
    c.q.resolved(ttl=LONG, **at("new.test", 10))
    job = c.q.job()
    wait_until(lambda: lanes(c) == {"old.test": (3, 1), "new.test": (3, 1)}, 10, "one of the lines at the new server")
    asked_next(c, "a@other.test")
    c.q.result(hangs)
    jobs = [job, c.q.job()]
    at_old = next(j for j in jobs if host(j) == b"old.test")
    assert at_old.id.decode() == stay[0]
    c.q.result(at_old)
    assert c.q.job().id.decode() == stay[1]
    at_new = next(j for j in jobs if host(j) == b"new.test")
    assert at_new.id.decode() == fresh and len(go) == 3


def first_line_has_moved(c):
    """One of two lines has gone to new.test; three of a third domain are in the old line since."""
    stay, go, hangs = two_lines(c)
    later(c, 2)
    c.q.commit(["fresh@goes.test"])
    c.q.resolved(ttl=LONG, **at("new.test", 10))
    c.q.job()
    wait_until(lambda: lanes(c).get("old.test") == (3, 1), 10, "the first line")
    again = [c.q.commit([f"c{n}@soon.test"]) for n in range(3)]
    c.q.resolved(ttl=1, **at("old.test"))
    wait_until(lambda: lanes(c).get("old.test") == (6, 1), 10, "another line")
    later(c, 2)
    return stay, go, hangs, again


def test_the_next_domain_that_moves_has_its_line_looked_at_a_minute_later(c):
    """So much does a line of any length cost at most, however often DNS changes."""
    stay, go, hangs, again = first_line_has_moved(c)
    c.q.commit(["fresh@soon.test"])
    c.q.resolved(ttl=LONG, **at("third.test", 11))
    c.q.job()
    assert lanes(c)["old.test"] == (6, 1) and len(again) == 3
    later(c, 60)
    wait_until(lambda: (lanes(c)["old.test"], lanes(c)["third.test"]) == ((3, 1), (3, 1)), 10, "the second line")
    c.q.result(hangs)
    assert c.q.job().id.decode() == stay[0] and len(go) == 3


def test_a_line_whose_look_comes_after_the_new_route_is_over(c):
    """It moves as a whole and in its order, with one lookup."""
    stay, _, hangs, again = first_line_has_moved(c)
    fresh = c.q.commit(["fresh@soon.test"])
    c.q.resolved(ttl=1, **at("third.test", 11))
    job = c.q.job()
    assert job.id.decode() == fresh and lanes(c)["old.test"] == (6, 1)
    later(c, 60)
    assert c.q.resolved(ttl=LONG, **at("third.test", 11)).recipient.endswith(b"@soon.test")
    wait_until(lambda: (lanes(c)["old.test"], lanes(c)["third.test"]) == ((3, 1), (3, 1)), 10, "the second line")
    assert [id for id, _ in deliver(c, job, 3)] == again
    c.q.result(hangs)
    assert c.q.job().id.decode() == stay[0]


def test_B89_an_answer_that_makes_no_sense_changes_nothing(c):
    """The domain's answer stays, by which its line knows that it moves; resolve is asked again."""
    ids, hangs = line(c, ttl=1)
    later(c, 2)
    fresh = c.q.commit(["fresh@d.test"])
    c.q.resolved(scope=1, ttl=LONG, site="new.test", targets=[])
    c.q.wait_log("RESOLVE_REPLY without usable targets")
    c.q.resolve.close()
    c.q.resolve = c.q.master.peer("resolve")
    c.q.resolved(ttl=LONG, **at("new.test", 10))
    job = c.q.job()
    wait_until(lambda: lanes(c) == {"old.test": (0, 1), "new.test": (3, 1)}, 10, "the line at the new server")
    assert sorted([job.id.decode()] + [id for id, _ in deliver(c, job, 3)]) == sorted(ids[1:] + [fresh])
    c.q.result(hangs)


def test_a_domain_with_one_route_again(c):
    """What was said of one of its addresses before does not go before what is said of all now."""
    c.q.commit(["a@d.test"])
    c.q.resolved(ttl=1, scope=1, **at("old.test"))
    job = c.q.job()
    ids = [c.q.commit(["b@d.test"]) for _ in range(2)]
    c.q.resolved(ttl=LONG, scope=1, **at("old.test"))
    wait_until(lambda: lanes(c) == {"old.test": (2, 1)}, 10, "the line")
    later(c, 2)
    c.q.result(job)
    c.q.resolved(ttl=LONG, **at("new.test", 10))
    job = c.q.job()
    assert [(job.id.decode(), host(job))] + deliver(c, job, 1) == [(id, b"new.test") for id in ids]


def test_a_job_of_several_domains_whose_routes_never_hold_at_one_time(several):
    """Each is looked up for longer than the other one's answer holds."""
    c = several
    busy = c.q.commit(["a@busy.test"], sender="x@other.test")
    c.q.resolved(ttl=LONG, **at("mx.test"))
    job = c.q.job()
    both = c.q.commit(["a@one.test", "b@two.test"])
    for _ in range(2):
        c.q.resolved(ttl=1, **at("mx.test"))
    wait_until(lambda: lanes(c) == {"mx.test": (1, 1)}, 10, "one job for both domains")
    later(c, 3)
    assert job.id.decode() == busy
    c.q.result(job)
    one, two = (c.q.resolve.expect("ipc_resolve_request") for _ in range(2))
    reply(c, one, ttl=1, **at("mx.test"))
    why = c.ask(request="shaping.why", id=both)[0]
    assert why["state"] == "routing"
    later(c, 3)
    reply(c, two, ttl=1, **at("mx.test"))
    job = c.q.job()
    assert sorted(r.address for r in job.recipients) == [b"a@one.test", b"b@two.test"]
    c.q.result(job)
    c.q.wait_log(rf"{both}: removed")


# ---- behind what does not move -------------------------------------------------------------------

def test_why_behind_a_delivery_that_hangs(c):
    """The rate says nothing then: what is waited for is told, and no time that will not be true."""
    began = time.monotonic()
    (hangs, id), job = line(c, 2, ttl=LONG, **at("mx.test"))
    why = c.ask(request="shaping.why", id=id)[0]
    assert why["state"] == "connections"
    if time.monotonic() - began < 9:  # a machine may stand still for longer: then it hangs, indeed
        assert "busy" not in why and why["expected_in"] < 1
    later(c, 300)
    why = c.ask(request="shaping.why", id=id)[0]
    assert "expected_in" not in why and why["busy"]["id"] == hangs and not why["busy"]["sent"]
    assert 299 < why["busy"]["for"] < 301 + time.monotonic() - began
    text = command(c, "shaping", "why", id)
    assert re.search(rf"it waits for a delivery there that is under way for \d+m[ 0-9ms]*, of {hangs}: "
                     "the server does not go on", text)
    assert "its turn comes" not in text
    c.q.relay.send("ipc_dot", job=job.job)
    wait_until(lambda: "the server has all of it, and does not answer" in command(c, "shaping", "why", id), 10,
               "the end of data")
    c.q.result(job)
    assert c.q.job().id.decode() == id
