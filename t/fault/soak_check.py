"""Judges a soak: was every accepted recipient accounted for, and is there a
reason for everything that came twice? (CASES: the checker's invariant.)"""
import collections
import dataclasses

from soak_clients import ACKED, MAYBE

ID_LEN = 15   # of a message; a notice's has a suffix
# A mark is on the disk this long after its event is in the log, whatever is
# killed; without an event, so long after the 250.
MARK_SECONDS = 1.0
RESULT_SECONDS = 3.0
# Chunks are pipelined: the end of the data may have been in the kernel before
# the sink came to read MAIL.
SINK_LAG = 1.0
# What may take the answer of a delivery with it. master and orderly stops are
# not among them: their services finish what is under way.
TAKE_ANSWERS = ("relay", "qmgr")


@dataclasses.dataclass
class Copy:
    """One message that the sink took: a delivery or a notice."""
    mail: float
    taken: float
    answered: float
    fate: str              # of its 250: "out", "dropped" by the sink, "gone" with its connection
    id: str
    recipients: list
    number: int = 0
    reported: tuple = ()   # of a notice: the recipients that failed


@dataclasses.dataclass
class Kill:
    begun: float
    done: float
    services: tuple


@dataclasses.dataclass
class Facts:
    messages: dict                 # number -> soak_clients.Message
    deliveries: list               # Copy
    notices: list                  # Copy
    events: dict                   # (id, recipient) -> times of its deliveries by the event log
    kills: list                    # Kill
    stops: list                    # (begun, done) of processes that were stopped for a while
    spool: set = dataclasses.field(default_factory=set)    # IDs at the end
    corrupt: set = dataclasses.field(default_factory=set)
    damaged: list = dataclasses.field(default_factory=list)  # (number, what)


def read_records(path):
    """What the sink wrote: deliveries, notices, damages."""
    deliveries, notices, damaged = [], [], []
    with open(path, encoding="ascii") as f:
        for line in f:
            fields = line.rstrip("\n").split("\t")
            if fields[0] == "X":
                damaged.append((int(fields[1]), fields[2]))
                continue
            if fields[0] == "L":   # soak_accounts.py looks at them
                continue
            times = [float(x) for x in fields[1:4]]
            fate, id, whose, addresses = fields[4:]
            if fields[0] == "T":
                deliveries.append(Copy(*times, fate, id, addresses.split(","), int(whose)))
            else:
                notices.append(Copy(*times, fate, id, whose.split(","), number_of(whose),
                                    tuple(filter(None, addresses.split(",")))))
    return deliveries, notices, damaged


def number_of(address):
    """12 of n12.k0.ok@dst.test and of s12@src.test."""
    return int(address.split("@")[0].split(".")[0][1:])


def is_refused(address):
    return address.split("@")[0].rsplit(".", 1)[-1] in ("no", "nodata")


def stopped_during(facts, begin, end):
    return sum(max(0, min(end, b) - max(begin, a)) for a, b in facts.stops)


def why_again(facts, copy, following, recipient):
    """Why this recipient of a copy got another one: a cause, or None."""
    if copy.fate == "dropped":
        return "lost 250"
    logged = [t for t in facts.events.get((copy.id, recipient), ())
              if copy.taken - 0.1 <= t <= following.taken]
    if copy.fate == "gone":  # then who had asked for it was killed before it was due
        end = copy.answered
    elif logged:
        end = logged[0] + MARK_SECONDS
    else:
        end = copy.answered + RESULT_SECONDS
    end += stopped_during(facts, copy.mail, end)
    for k in facts.kills:
        if k.done >= copy.mail - SINK_LAG and k.begun <= end:
            hit = [s for s in TAKE_ANSWERS if s in k.services]
            if hit:
                return f"kill of {' and '.join(hit)}"
    return None


@dataclasses.dataclass
class Verdict:
    lost: list = dataclasses.field(default_factory=list)
    unexplained: list = dataclasses.field(default_factory=list)
    wrong: list = dataclasses.field(default_factory=list)
    duplicates: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    # number -> [recipients delivered to, recipients in a notice]
    outcomes: dict = dataclasses.field(
        default_factory=lambda: collections.defaultdict(lambda: [0, 0]))
    delivered: int = 0
    bounced: int = 0
    spool: int = 0
    corrupt: int = 0

    @property
    def good(self):
        return not (self.lost or self.unexplained or self.wrong or self.corrupt)


def judge_copies(v, facts, copies, address, what):
    """All but the last copy of one delivery or notice need a cause."""
    copies = sorted(copies, key=lambda c: c.taken)
    for copy, following in zip(copies, copies[1:]):
        why = why_again(facts, copy, following, address)
        if why:
            v.duplicates[f"{what}: {why}"] += 1
        else:
            v.unexplained.append((copy.number, f"{what} for {address} came at {copy.taken:.3f} "
                                  f"({copy.id}) and again at {following.taken:.3f}"))


def judge_recipient(v, facts, m, address, delivered, reported):
    """True if this recipient is accounted for."""
    expected = "a notice" if is_refused(address) else "a delivery"
    if is_refused(address) and delivered or not is_refused(address) and reported:
        v.wrong.append((m.number, f"{address} got what is not {expected}"))
    judge_copies(v, facts, delivered, address, "delivery")
    judge_copies(v, facts, reported, m.sender, "notice")
    ids = {c.id for c in reported}
    if len(ids) > 1:
        v.unexplained.append((m.number, f"{address} is in several notices: {sorted(ids)}"))
    if delivered:
        v.delivered += 1
        v.outcomes[m.number][0] += 1
    elif reported:
        v.bounced += 1
        v.outcomes[m.number][1] += 1
    elif m.id in facts.spool:
        v.spool += 1
    elif m.id in facts.corrupt:
        v.corrupt += 1
    else:
        return False
    return True


def judge_message(v, facts, m, delivered, reported):
    """A message is owed in whole if it was acknowledged, or if anything of it came."""
    came = [a for a in m.recipients if delivered.get(a) or reported.get(a)]
    if m.state not in (ACKED, MAYBE):
        if came:
            v.wrong.append((m.number, f"nothing was owed ({m.state}, {m.reply!r}), "
                            f"but {came[0]} got something"))
        return
    if m.state == MAYBE and not came:
        return
    if not m.id:   # its 250 was lost; those who got it know
        copies = [c for of in (delivered, reported) for cs in of.values() for c in cs]
        m.id = copies[0].id[:ID_LEN]
    missing = [a for a in m.recipients
               if not judge_recipient(v, facts, m, a, delivered.get(a, []), reported.get(a, []))]
    if missing:
        v.lost.append((m.number, f"{m.state} {m.id} at {m.time:.3f}: nothing of {len(missing)} of "
                       f"{len(m.recipients)} recipients: {', '.join(missing[:5])}"))


def judge(facts):
    delivered, reported = collections.defaultdict(dict), collections.defaultdict(dict)
    for copies, of, names in ((facts.deliveries, delivered, "recipients"),
                              (facts.notices, reported, "reported")):
        for c in copies:
            for address in getattr(c, names):
                of[c.number].setdefault(address, []).append(c)
    v = Verdict()
    for m in facts.messages.values():
        judge_message(v, facts, m, delivered[m.number], reported[m.number])
    for number, what in facts.damaged:
        v.wrong.append((number, what))
    for id in facts.corrupt:
        v.wrong.append((0, f"{id} is in corrupt/, where a kill puts nothing"))
    return v
