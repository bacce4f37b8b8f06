"""Results of the benchmarks run and scale: one JSON object a line, which says the row, the
relay and the figures of one measurement. They can be made one by one, in the quiet moments
of a machine (--rounds 1 --relay NAME --save FILE ROW), and put together later (--combine
FILE): medians of all that a row and relay have in the file."""
import json
import statistics

RELAYS = ("postfix", "postern", "accounts", "shaping")  # Postern alone, with accounts, with providers.conf


def options(parser):
    """What both programs understand."""
    parser.add_argument("-r", "--rounds", type=int, default=3)
    parser.add_argument("--relay", choices=RELAYS, help="this one alone")
    parser.add_argument("--save", metavar="FILE", help="appends each result")
    parser.add_argument("--combine", metavar="FILE", action="append",
                        help="measures nothing: puts saved results together; may be repeated")


class Results:
    def __init__(self, save=None):
        self.save, self.entries = save, []

    def add(self, row, relay, figures):
        entry = {"row": row, "relay": relay, **figures}
        line = json.dumps(entry)
        print(line, flush=True)
        self.entries.append(entry)
        if self.save:
            with open(self.save, "a", encoding="ascii") as f:
                f.write(line + "\n")

    def load(self, paths):
        """Adds what was saved."""
        for path in paths:
            with open(path, encoding="ascii") as f:
                self.entries += [json.loads(line) for line in f if line.strip()]
        return self

    def of(self, row, relay):
        return [e for e in self.entries if (e["row"], e["relay"]) == (row, relay)]

    def rounds(self, row):
        return {relay: len(self.of(row, relay)) for relay in RELAYS if self.of(row, relay)}

    def median(self, row, relay, key):
        """None if there is no such figure."""
        values = [e[key] for e in self.of(row, relay) if isinstance(e.get(key), (int, float))]
        return statistics.median(values) if values else None

    def medians(self, row, relay):
        """Of all figures that all results of this row have."""
        found = self.of(row, relay)
        keys = [k for k in found[0] if all(isinstance(e.get(k), (int, float)) for e in found)]
        return {k: self.median(row, relay, k) for k in keys}
