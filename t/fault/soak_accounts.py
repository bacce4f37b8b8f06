"""The soak with accounts: clients that log in over TLS, and what they owe at the end.

Each client is a user of an account with a plan; every message is charged when it is taken,
and each recipient ends as delivered or as refunded. At the end usage must be exactly that,
whatever was killed: nothing counted twice, nothing forgotten, no charge open, and nothing
reserved but what nobody can know of yet. Owners get each of their letters once.
"""
import base64
import collections
import json
import os
import re
import ssl
import subprocess
import sys

from postern import BIN, wait_until
import accounts_look
import soak_check
from soak_clients import MAYBE, OPEN, REFUSED, Client, Gone
from tls_rig import make

PLAN_MESSAGES = 20000   # of the plan `count`, whose owner is told of every percent
PLANS = f"""
plan count {{ messages = {PLAN_MESSAGES}
  at_limit = surcharge
  overage = block:1000
  report_every = 1 }}
plan volume {{ bytes = 1000GB
  byte_minimum = 10KB
  at_limit = block }}
plan rates {{ account_rate = {{1000000/minute, 10000000/day}}
  user_rate = {{1000000/hour}} }}
"""
ACCOUNTS = ("count", "volume", "rates")   # each has the plan of its name
POINTS = ("quota.apply", "quota.charged", "kv.apply")
RESERVE_SECONDS = 600   # quota.h
FORGOTTEN_SECONDS = 850   # until the first charges are forgotten (quota.h: CLOSED_SECONDS)
LETTERS = "letters@dst.test"
PERCENT = re.compile(r"(\d+)%")
# A letter is with qmgr, and quota knows it for good, so long after it was handed over; what
# was delivered in between comes again only if both die.
LETTER_SECONDS = 1.0
OFTEN = 6   # it is killed, compared with soak_trouble.ACTIONS


def config(directory):
    """What main.cf has more, and plans.conf."""
    with open(os.path.join(directory, "plans.conf"), "w", encoding="utf-8") as f:
        f.write(PLANS)
    return {**make(directory, "relay.test").config, "accounts_enable": "yes",
            "plans_file": "plans.conf", "accounts_minfree": "0", "scram_iterations": "4096",
            # full before memory is measured: a larger one grows with its database
            "accounts_cache_size": "1M",
            "smtpd_sasl_auth_enable": "yes", "mynetworks": "192.0.2.0/24",
            "smtpd_recipient_restrictions": "permit_sasl_authenticated,reject"}


def account_of(k):
    return ACCOUNTS[k % len(ACCOUNTS)]


def fill(p, clients, reference=LETTERS):
    """Accounts and users of a relay that has just started; `reference`: who gets letters."""
    wait_until(lambda: p.ctl("account", "status", check=False).returncode == 0, 30, "quota")
    p.wait_log("plans read from")
    for name in ACCOUNTS:
        p.ctl("account", "add", name, "--plan", name,
              *(["--reference", reference] if reference else []))
        p.ctl("domain", "add", name, "src.test")
    for k in range(clients):
        subprocess.run([os.path.join(BIN, "postern"), "-c", p.directory, "user", "add", f"user{k}",
                        account_of(k)], input="secret\n", text=True, check=True, timeout=60)


class AccountClient(Client):
    """A client that logs in; it remembers whose its messages are."""

    def __init__(self, k, *rest):
        super().__init__(*rest)
        self.user, self.mine = f"user{k}", set()
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.tls.check_hostname, self.tls.verify_mode = False, ssl.CERT_NONE

    def greet(self):
        super().greet()
        self.expect(b"STARTTLS", b"220")
        self.input.close()
        self.socket = self.tls.wrap_socket(self.socket)
        self.input = self.socket.makefile("rb")
        super().greet()
        login = base64.b64encode(f"\0{self.user}\0secret".encode())
        if not self.command(b"AUTH PLAIN " + login).startswith(b"235"):
            raise Gone

    def submit(self, m):
        self.mine.add(m.number)
        super().submit(m)


def owed(clients, outcomes):
    """What usage must say of each account and user: {owner: (delivered, refunded)}."""
    sums = collections.defaultdict(lambda: [0, 0])
    for k, c in enumerate(clients):
        for number in c.mine:
            for owner in (account_of(k), f"{account_of(k)}/{c.user}"):
                for i in (0, 1):
                    sums[owner][i] += outcomes.get(number, (0, 0))[i]
    return sums


def usage(p, owner):
    account, _, user = owner.partition("/")
    return json.loads(p.ctl("usage", "show", account, *([user] if user else []), "--json"))


def unanswered(client):
    """Recipients of messages that may be reserved: the end of their data was sent, or a part
    of it, and what became of them the client was not told. quota hears of such a message from
    qmgr, or lets it go when RESERVE_SECONDS are over."""
    messages = [client.numbers.messages[n] for n in client.mine]
    return sum(len(m.recipients) for m in messages if m.state in (OPEN, MAYBE) or
               m.state == REFUSED and m.reply.startswith("451"))


def held_back(p, clients, whole):
    """What is wrong with what is reserved; `whole`: nothing may be."""
    wrong, most = [], collections.Counter()
    for k, c in enumerate(clients):
        for owner in (account_of(k), f"{account_of(k)}/{c.user}"):
            most[owner] += 0 if whole else unanswered(c)
    for owner, limit in sorted(most.items()):
        reserved = usage(p, owner)["reserved"]
        if reserved > limit:
            wrong.append(f"usage of {owner}: {reserved} reserved; at most {limit} may be")
    return wrong


def compare(p, clients, outcomes, patient):
    """Complaints, and the sums, once quota knows all; the queue is empty. `patient`: waits
    until even what nobody knows of is not reserved any more."""
    sums = owed(clients, outcomes)

    def difference():
        wrong = []
        for owner, (delivered, refunded) in sorted(sums.items()):
            u = usage(p, owner)
            have = (u["delivered"], u["refunded"], u["messages"])
            if have != (delivered, refunded, delivered):
                wrong.append(f"usage of {owner}: {have[0]} delivered, {have[1]} refunded, "
                             f"{have[2]} charged; it is {delivered} delivered, {refunded} refunded")
        return wrong
    try:
        # charges whose message is gone are asked about after some seconds
        wait_until(lambda: not difference(), 60, "usage that is what was delivered")
        if patient:
            wait_until(lambda: not held_back(p, clients, True), RESERVE_SECONDS + 30,
                       "no reservation")
    except AssertionError as e:
        print(e, file=sys.stderr)
    return (difference() + held_back(p, clients, patient),
            {owner: tuple(s) for owner, s in sums.items() if "/" not in owner})


# ---- when the relay has stopped


def check_database(p, seconds):
    """Complaints about the database itself: no charge is open, no letter waits, and every
    usage is the sum of its charges, if none was forgotten in these seconds."""
    with accounts_look.Look() as look:
        found = look.at(p.path("data", "accounts"))
    if "error" in found:
        return [f"the accounts' database: {found['error']}"]
    wrong = accounts_look.sums_differ(found) if seconds < FORGOTTEN_SECONDS else []
    wrong += [f"the charge of {c['id']} is still open" for c in found["charges"] if c["open"]]
    if found["letters"]:
        wrong.append(f"{found['letters']} letters were not taken by qmgr")
    return wrong


def read_letters(path):
    """What the sink took: subject -> copies."""
    letters = collections.defaultdict(list)
    with open(path, encoding="ascii") as f:
        for line in f:
            fields = line.rstrip("\n").split("\t")
            if fields[0] == "L":
                times = [float(x) for x in fields[1:4]]
                letters[fields[6]].append(soak_check.Copy(*times, fields[4], fields[5], [LETTERS]))
    return letters


def both_died(facts, copy):
    """Whether quota and qmgr were killed while only they knew that the letter was taken."""
    near = [k for k in facts.kills if k.done >= copy.mail - LETTER_SECONDS and
            k.begun <= copy.answered + LETTER_SECONDS]
    return all(any(s in k.services for k in near) for s in ("quota", "qmgr"))


def check_letters(facts, letters, percent):
    """Each came once, or there is a reason; the last is not missing. `percent` of the plan
    `count` is used."""
    wrong = []
    for subject, copies in sorted(letters.items()):
        copies.sort(key=lambda c: c.taken)
        if len({c.id for c in copies}) > 1:
            wrong.append(f"{subject!r} was told in several letters: {[c.id for c in copies]}")
        wrong += [f"{subject!r} came at {a.taken:.3f} and again at {b.taken:.3f} ({a.id})"
                  for a, b in zip(copies, copies[1:])
                  if not soak_check.why_again(facts, a, b, LETTERS) and not both_died(facts, a)]
    told = [int(m[1]) for m in map(PERCENT.search, letters) if m]
    if min(percent, 100) > max(told, default=0):
        wrong.append(f"{percent}% is used, and the last letter told of {max(told, default=0)}%")
    return wrong
