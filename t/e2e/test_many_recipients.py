"""A message to more recipients than the plan has room for now: those that were taken are
delivered, and the client sends the others separately (B30, RFC 5321 section 4.5.3.1.10)."""
import os

import pytest
import shop as shop_module
from certs import Authority
from peers import needs_root
from postern import Postern, wait_until
from shop import MESSAGE, Shop, shop_sink  # noqa: F401
from test_auth_servers import USER, PostfixLogin

PLANS = """
plan one { recipients = 1 }
plan three { recipients = 3 }
plan five_a_day { user_rate = {5/day}
  rate_action = defer }
plan six { messages = 6
  at_limit = block }
plan slow { spike_factor = 2
  spike_minimum = 4
  spike_action = slow }
"""
REFUSED = {"three": 452, "five_a_day": 450, "six": 550, "slow": 450}
TAKEN = {"three": 3, "five_a_day": 5, "six": 6, "slow": 4}


@pytest.fixture(name="shop", scope="module")
def shop_of_plans(tmp_path_factory, sink):
    kept = shop_module.PLANS
    shop_module.PLANS += PLANS
    try:
        with Shop(tmp_path_factory.mktemp("many"), sink) as p:
            yield p
    finally:
        shop_module.PLANS = kept


@pytest.mark.parametrize("plan", REFUSED)
def test_B30_what_the_plan_has_room_for_is_taken(shop, sink, plan):
    """Far more refusals than smtpd_hard_error_limit, without a wait, and then the message."""
    user = f"u@{plan.replace('_', '-')}.test"
    domain = user.split("@")[1]
    shop.ctl("account", "add", plan, "--plan", plan)
    shop.ctl("domain", "add", plan, domain)
    shop.user(user, "secret", plan)
    names = [f"{plan}-{i}@dst.test" for i in range(40)]
    with shop.login(user) as c:
        assert c.mail(user)[0] == 250
        codes = [c.rcpt(name)[0] for name in names]
        assert codes == [250] * TAKEN[plan] + [REFUSED[plan]] * (40 - TAKEN[plan])
        assert c.data(MESSAGE.replace(b"web@acme.test", user.encode()))[0] == 250
    wait_until(lambda: [m for m in sink.messages if m.recipients == names[:TAKEN[plan]]], 20,
               "the message")


class PostfixInAHurry(PostfixLogin):
    """Tries again soon what was deferred. Not at once: what it finds still locked by the delivery
    before, its queue manager leaves alone for five minutes."""

    def configure(self):
        super().configure()
        with open(os.path.join(self.etc, "postfix/main.cf"), "a", encoding="utf-8") as f:
            f.write("minimal_backoff_time = 3s\nmaximal_backoff_time = 3s\nqueue_run_delay = 1s\n")


@needs_root
@pytest.mark.parametrize("plan, count", [("one", 12), ("three", 30)])
def test_B30_a_server_gets_a_message_to_many_through(shop, sink, place, plan, count):
    """Debian's Postfix hands over one message to very many: all get it, each once, in rounds."""
    names = sorted(f"{plan}-of-many-{i}@dst.test" for i in range(count))

    def arrived():
        return sorted(r for m in sink.messages for r in m.recipients if r in names)
    shop.ctl("account", "set", "acme", "--plan", plan)
    certificate = Authority(str(place)).server("smarthost.test")
    with PostfixInAHurry(place, relayhost=shop.submission, certificate=certificate) as s:
        s.submit_to_many(USER, names, MESSAGE)
        wait_until(lambda: len(arrived()) >= count, 240, f"all of {count} recipients")
    assert arrived() == names
    assert "too many errors" not in shop.log()


def test_B30_who_had_no_recipient_taken_is_an_offender(place):
    """The limit of the client's address is used up: refusals count, and 421 ends it."""
    with Postern(place, relayhost="[127.0.0.1]:1", smtpd_client_recipient_rate_limit="5",
                 smtpd_client_event_limit_exceptions="", smtpd_error_sleep_time="0") as p:
        with p.client() as c:
            c.ehlo()
            assert c.mail("a@src.test")[0] == 250
            codes = [c.rcpt(f"r{i}@dst.test")[0] for i in range(40)]
            assert codes == [250] * 5 + [450] * 35
            assert c.data(MESSAGE)[0] == 250
        c = p.client()
        c.ehlo()
        assert c.mail("a@src.test")[0] == 250
        assert [c.rcpt(f"r{i}@dst.test")[0] for i in range(20)] == [450] * 20
        assert c.getreply() == (421, b"4.7.0 relay.test Error: too many errors")
        c.close()
