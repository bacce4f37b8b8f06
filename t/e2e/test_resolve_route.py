"""Where mail goes by relayhost and transport_maps."""
from postern import wait_until
from test_resolve_dns import OK, addresses, dns, refused, start  # noqa: F401

SMTP, LMTP, ERROR, RETRY, DISCARD = range(5)
MAP = """
user@a.test     smtp:[127.0.0.41]
a.test          smtp:[127.0.0.42]:2525
.b.test         smtp:[127.0.0.43]
c.sub.b.test    smtp:mxdomain.test
lmtp.test       lmtp:inet:mx1.test:2003
sock.test       lmtp:unix:/run/lmtp
bad.test        error:5.7.1 not here
plain.test      error:go away
later.test      retry:4.3.0 come back
void.test       discard:
own.test        :
domain.test     smtp:
typo.test       smpt:[127.0.0.1]
list.test       smtp:[127.0.0.51]:26, mxdomain.test [127.0.0.52]
"""


def with_map(start, content, spec="texthash:/etc/postern/transport", **config):
    r = start(transport_maps=spec, **config)
    r.master.table("transport_maps", 0, spec, content)
    return r


def where(reply):
    assert reply.status == OK, reply
    return [f"{a}:{t.port}" for a, t in zip(addresses(reply), reply.targets)]


def test_transport_maps(dns, start):
    dns.add("mxdomain.test", "MX", "10 mx1.test", "20 mx2.test")
    dns.add("other.test", "MX", "10 mx3.test")
    dns.add("domain.test", "MX", "10 mx2.test")
    r = with_map(start, MAP)
    assert where(r.ask("User@A.test")) == ["127.0.0.41:25"]
    assert where(r.ask("else@a.test")) == ["127.0.0.42:2525"]
    assert where(r.ask("x@deep.sub.b.test")) == ["127.0.0.43:25"]
    assert where(r.ask("x@c.sub.b.test")) == ["127.0.0.11:25", "127.0.0.12:25"]
    assert r.ask("x@b.test").status != OK  # ".b.test" is for what is below
    reply = r.ask("x@lmtp.test")
    assert (reply.transport, where(reply), reply.site) == \
        (LMTP, ["127.0.0.11:2003"], b"lmtp:mx1.test:2003")
    reply = r.ask("x@sock.test")
    assert (reply.transport, reply.targets[0].address, reply.targets[0].port) == \
        (LMTP, b"/run/lmtp", 0)
    assert where(r.ask("x@other.test")) == ["127.0.0.13:25"]
    assert where(r.ask("x@domain.test")) == ["127.0.0.12:25"]
    reply = r.ask("x@list.test")
    assert where(reply) == ["127.0.0.51:26", "127.0.0.11:25", "127.0.0.12:25", "127.0.0.52:25"]
    assert sorted({t.preference for t in reply.targets}) == [t.preference for t in reply.targets]
    assert reply.site == b"list:[127.0.0.51]:26, mxdomain.test [127.0.0.52]"


def test_transports_that_deliver_nowhere(start):
    r = with_map(start, MAP)
    reply = r.ask("x@bad.test")
    refused(reply, 550, "5.7.1")
    assert (reply.text, reply.transport) == (b"not here", ERROR)
    refused(r.ask("x@plain.test"), 550, "5.0.0")
    reply = r.ask("x@later.test")
    refused(reply, 450, "4.3.0")
    assert (reply.text, reply.transport) == (b"come back", RETRY)
    reply = r.ask("x@void.test")
    assert (reply.status, reply.transport, reply.targets) == (OK, DISCARD, [])
    assert reply.code == 250 and reply.text


def test_a_wrong_entry_defers_and_is_reported(start):
    r = with_map(start, MAP)
    refused(r.ask("x@typo.test"), 451, "4.3.5")
    r.master.wait_log(r"error: transport_maps: unknown transport \"smpt\"")


def test_scope(dns, start):
    dns.add("other.test", "MX", "10 mx3.test")
    r = with_map(start, MAP)
    assert r.ask("x@a.test").scope == 1  # user@a.test has an entry of its own
    assert r.ask("x@other.test").scope == 0
    assert r.ask("x@other.test").ttl <= 30


def test_star_and_relayhost(dns, start):
    r = with_map(start, "own.test :\n* smtp:[127.0.0.60]\n", relayhost="[127.0.0.61]:2525")
    assert where(r.ask("x@any.test")) == ["127.0.0.60:25"]
    assert where(r.ask("x@own.test")) == ["127.0.0.61:2525"]
    assert dns.queries == []


def test_relayhost_domain(dns, start):
    dns.add("hub.test", "MX", "10 mx1.test")
    reply = start(relayhost="hub.test:2525").ask("x@any.test")
    assert where(reply) == ["127.0.0.11:2525"]
    assert (reply.nexthop, reply.site) == (b"hub.test:2525", b"mx1.test:2525")


def test_relayhost_that_does_not_exist_defers(start):
    """The operator's mistake returns nobody's mail."""
    refused(start(relayhost="missing.test").ask("x@any.test"), 451, "4.4.4")


def test_wrong_relayhost_defers(start):
    r = start(relayhost="[unclosed")
    refused(r.ask("x@any.test"), 451, "4.3.5")
    r.master.wait_log("error: relayhost: ")


def test_pcre(start):
    r = with_map(start, "/^vip-.*@/ smtp:[127.0.0.70]\n/@(t[0-9])\\.test$/ smtp:[127.0.0.71]\n",
                 "pcre:/etc/postern/t.pcre", relayhost="[127.0.0.61]")
    assert where(r.ask("vip-1@t1.test")) == ["127.0.0.70:25"]
    assert where(r.ask("u@t1.test")) == ["127.0.0.71:25"]
    reply = r.ask("u@other.test")
    assert where(reply) == ["127.0.0.61:25"] and reply.scope == 1


def test_cidr(start):
    """Mail to address literals."""
    r = with_map(start, "if 127.0.0.0/8\n127.0.0.9 smtp:[127.0.0.72]\nendif\n",
                 "cidr:/etc/postern/t.cidr", relayhost="[127.0.0.61]")
    assert where(r.ask("u@[127.0.0.9]")) == ["127.0.0.72:25"]
    assert where(r.ask("u@[127.0.0.10]")) == where(r.ask("u@x.test")) == ["127.0.0.61:25"]


def test_inline(start):
    r = start(transport_maps="inline:{ x.test=smtp:[127.0.0.81], { y.test = error:no mail } }",
              relayhost="[127.0.0.61]")
    assert where(r.ask("u@x.test")) == ["127.0.0.81:25"]
    refused(r.ask("u@y.test"), 550, "5.0.0")


def test_questions_wait_for_their_tables(start):
    spec = "texthash:/etc/t"
    r = start(transport_maps=spec)
    r.send("u@x.test")
    assert r.qmgr.receive(0.5) is None
    r.master.table("transport_maps", 0, spec, "x.test smtp:[127.0.0.90]\n")
    assert where(r.qmgr.expect("ipc_resolve_reply")) == ["127.0.0.90:25"]


def test_changed_and_broken_tables(start):
    spec = "texthash:/etc/t"
    r = with_map(start, "x.test smtp:[127.0.0.90]\n", spec)
    assert where(r.ask("u@x.test")) == ["127.0.0.90:25"]
    r.master.table("transport_maps", 0, spec, "x.test smtp:[127.0.0.91]\n")
    wait_until(lambda: where(r.ask("u@x.test")) == ["127.0.0.91:25"], 5, "the new table")
    r.master.table("transport_maps", 0, spec, "x.test\n")
    r.master.wait_log(r"error: transport_maps: /etc/t:1: .*the old version stays in use")
    assert where(r.ask("u@x.test")) == ["127.0.0.91:25"]
