"""What may be on a disk after a power cut: a model of a file system, fed with the
calls that were recorded (shim.py).

The model promises what POSIX and the kernel's documentation promise and nothing
more. It is weaker than any journalling file system, and knows these:

- fsync and fdatasync of a file that succeeded: its content as of the sync's
  beginning is there. Its name need not be.
- fsync of a directory that succeeded: the names made, changed or removed in it
  before the sync began are as they were then. That the directory itself has a
  name in its parent need not be so.
- syncfs that succeeded: both, for everything before it began.
- A rename is one step: the file has its old name or its new one, never both,
  never none. A sync of either directory makes it durable.
- All else may be there or not. Content by sectors of 512 bytes: each has any of the
  values that it had since it was last durable; the length likewise; a sector
  inside the length that was never written is zero. Names: any subset of the
  changes, but not a change without an earlier one of the same file or of the same
  name, or the removal of a directory without the removals of what was in it.
- A call that has not returned may be done, half done (content) or not done. A sync
  that has not returned promises nothing; neither does one that failed.

What a state holds is chosen by a policy:

    none    nothing but what is promised
    all     all that was done
    names   all changes of names, no content that is not promised
    data    all content, no change of names that is not promised
    journal names in the order of the calls up to some point (as ext4, XFS), content
            by chance
    random  names and content by chance
"""
import dataclasses
import random

import shim

SECTOR, PAGE = 512, 4096
FILLERS = 500   # of so many writes of zeros one is a cut
UNREAD = "free/"   # what is in these files is never looked at
POLICIES = ("none", "all", "names", "data", "journal", "random")
NAME_CALLS = (shim.CREATE, shim.RENAME, shim.UNLINK, shim.MKDIR, shim.RMDIR)
DATA_CALLS = (shim.WRITE, shim.TRUNCATE)


class File:
    """An inode: what of its content is durable, and the writes since."""
    def __init__(self, content=b"", is_directory=False):
        self.durable, self.is_directory = content, is_directory
        self.writes = []       # Op, in order
        self.all = None        # content with all of them


@dataclasses.dataclass
class Op:
    """One change, of a name or of content."""
    record: shim.Record
    file: File
    removes: tuple = None      # (directory's File, name)
    adds: tuple = None
    replaced: File = None
    over: bool = False         # it returned

    def keys(self):
        return [k for k in (self.file, self.replaced, self.removes, self.adds) if k]


class Disk:
    """Goes through the record of the calls; at each step, what may be there."""

    def __init__(self, tree, root):
        """`tree`: path -> (inode, content, or None for a directory), all durable."""
        self.files = {}        # inode -> File, as things are now
        self.names = {}        # (File of the directory, name) -> File, now
        self.durable = {}      # the same, promised
        self.pending = []      # changes of names that are not promised
        self.dirty = {}        # File -> None: with writes that are not promised
        self.root = self.files[root] = File(is_directory=True)
        # for mutants: what a sync is worth (names, content), and changes that none makes
        # durable
        self.worth = self.forgets = None
        paths = {"": self.root}
        for path in sorted(tree):
            inode, content = tree[path]
            file = paths[path] = self.files[inode] = File(content or b"", content is None)
            folder, _, name = path.rpartition("/")
            self.names[paths[folder], name] = self.durable[paths[folder], name] = file

    # ---- the record

    def begin(self, r):
        """The call may have had an effect from now on."""
        if r.call in NAME_CALLS:
            op = self.name_op(r)
            if op:
                self.pending.append(op)
            return op
        if r.call in DATA_CALLS and r.inode in self.files:
            op = Op(r, self.files[r.inode])
            op.file.writes.append(op)
            op.file.all = None
            self.dirty[op.file] = None
            return op
        return None

    def name_op(self, r):
        if r.error or r.source[0] not in self.files:
            return None
        source = (self.files[r.source[0]], r.source[1])
        if r.call in (shim.CREATE, shim.MKDIR):
            file = self.files[r.inode] = File(is_directory=r.call == shim.MKDIR)
            self.names[source] = file
            return Op(r, file, adds=source)
        file = self.names.pop(source)
        if r.call != shim.RENAME:
            return Op(r, file, removes=source)
        target = (self.files[r.target[0]], r.target[1])
        op = Op(r, file, source, target, self.names.get(target))
        self.names[target] = file
        return op

    def end(self, r, op):
        """The call returned. True if something became durable."""
        if op:
            op.over = True
            if r.error and r.call in DATA_CALLS:
                self.take_back(op)
        if r.call in (shim.FSYNC, shim.SYNCFS) and not r.error:
            return self.sync(r)
        return False

    def take_back(self, op):
        op.file.writes.remove(op)
        op.file.all = None

    def sync(self, r):
        names = data = True
        if self.worth:
            names, data = self.worth(r)
        target = self.files.get(r.inode)
        if r.call == shim.SYNCFS:
            changed = data and any([self.sync_content(f, r) for f in list(self.dirty)])
            return (names and self.sync_names(None, r)) or changed
        if target is None:
            return False
        if target.is_directory:
            return names and self.sync_names(target, r)
        return data and self.sync_content(target, r)

    def sync_content(self, file, r):
        done = [op for op in file.writes if op.over and op.record.end < r.begin and
                not (self.forgets and self.forgets(op))]
        if done:
            content = bytearray(file.durable)
            for op in done:
                overwrite(content, op.record)
            file.durable = bytes(content)
        gone = {id(op) for op in done}
        file.writes = [op for op in file.writes if id(op) not in gone]
        if not file.writes:
            self.dirty.pop(file, None)
        return bool(done)

    def sync_names(self, directory, r):
        """What is promised brings with it what it builds upon."""
        promised = [op for op in self.pending
                    if op.over and op.record.end < r.begin and
                    not (self.forgets and self.forgets(op)) and
                    (directory is None or directory in (op.removes and op.removes[0],
                                                        op.adds and op.adds[0]))]
        if not promised:
            return False
        wanted, chosen = set(), []
        last = promised[-1]
        for op in reversed(self.pending[:self.pending.index(last) + 1]):
            if op in promised or wanted.intersection(map(id_of, op.keys())):
                wanted.update(map(id_of, op.keys()))
                chosen.append(op)
        for op in reversed(chosen):
            apply_name(self.durable, op)
        chosen = {id(op) for op in chosen}
        self.pending = [op for op in self.pending if id(op) not in chosen]
        return True

    # ---- a state

    def choose_names(self, policy, rng):
        if policy in ("all", "names"):
            return self.pending
        if policy in ("none", "data"):
            return []
        if policy == "journal":
            return self.pending[:rng.randrange(len(self.pending) + 1)]
        chance, chosen, blocked = rng.choice((0.1, 0.5, 0.9)), [], set()
        for op in self.pending:
            keys = set(map(id_of, op.keys()))
            inside = {("in", id(part[0])) for part in (op.removes, op.adds) if part}
            if op.record.call == shim.RMDIR:
                keys.add(("in", id(op.file)))
            if rng.random() < chance and not keys & blocked:
                chosen.append(op)
            else:
                blocked |= keys | inside
        return chosen

    def state(self, policy, rng):
        """path -> content, or None for a directory."""
        names = dict(self.durable)
        for op in self.choose_names(policy, rng):
            apply_name(names, op)
        children = {}
        for (directory, name), file in names.items():
            children.setdefault(directory, []).append((name, file))
        out = {}

        def walk(directory, prefix):
            for name, file in sorted(children.get(directory, ()), key=lambda c: c[0]):
                out[prefix + name] = None if file.is_directory else \
                    b"" if prefix == UNREAD else content_of(file, policy, rng)
                if file.is_directory:
                    walk(file, prefix + name + "/")
        walk(self.root, "")
        return out


def id_of(key):
    return id(key) if isinstance(key, File) else (id(key[0]), key[1])


def apply_name(names, op):
    if op.removes:
        names.pop(op.removes, None)
    if op.adds:
        names[op.adds] = op.file


# ---- content -------------------------------------------------------------------------


def content_of(file, policy, rng):
    if not file.writes or policy == "none":
        return file.durable
    if policy in ("all", "data"):
        return everything(file)
    how = rng.choice(("nothing", "zeros")) if policy == "names" else \
        rng.choice(("nothing", "all", "all", "zeros", "first", "but first", "front", "some", "some"))
    if how == "nothing":
        return file.durable
    if how == "all":
        return everything(file)
    return torn(file, how, rng)


def everything(file):
    if file.all is None:
        content = bytearray(file.durable)
        for op in file.writes:
            overwrite(content, op.record)
        file.all = bytes(content)
    return file.all


def overwrite(content, record):
    """What a write or truncation makes of a content."""
    if record.call == shim.TRUNCATE:
        del content[record.size:]
        content.extend(bytes(record.size - len(content)))
        return
    content.extend(bytes(max(0, record.at - len(content))))
    content[record.at:record.at + record.size] = record.data


def sector_of(content, i):
    return bytes(content[i * SECTOR:(i + 1) * SECTOR]).ljust(SECTOR, b"\0")


def history(file):
    """What each sector was, in order, since the file was durable, and the lengths it had."""
    content = bytearray(file.durable)
    lengths, sectors = [len(content)], {}

    def remember(first, last):
        for i in range(first, last):
            value = sector_of(content, i)
            if sectors.setdefault(i, [sector_of(file.durable, i)])[-1] != value:
                sectors[i].append(value)
    for op in file.writes:
        before = len(content)
        overwrite(content, op.record)
        begin = min(before, op.record.at if op.record.call == shim.WRITE else op.record.size)
        remember(begin // SECTOR, (max(before, len(content)) + SECTOR - 1) // SECTOR
                 if op.record.call == shim.TRUNCATE else
                 (op.record.at + op.record.size + SECTOR - 1) // SECTOR)
        lengths.append(len(content))
    return content, lengths, sectors


def torn(file, how, rng):
    """Each sector has one of the values that it had since it was durable."""
    last, lengths, sectors = history(file)
    length = lengths[-1] if how in ("zeros", "first", "but first") else rng.choice(lengths[1:])
    count = (length + SECTOR - 1) // SECTOR
    front, chance = rng.randrange(count + 1), rng.choice((0.1, 0.5, 0.9))
    out = []
    for i in range(count):
        new = {"zeros": False, "first": i == 0, "but first": i != 0, "front": i < front}.get(how)
        if new is None:
            new = rng.random() < chance
        values = sectors.get(i)
        if values is None:
            out.append(sector_of(last, i))
        else:
            out.append(values[0] if not new else rng.choice(values[1:] or values)
                       if how == "some" else values[-1])
    return b"".join(out)[:length]


# ---- cuts ----------------------------------------------------------------------------


def steps(records):
    """(position, record, whether it is its end), in order."""
    out = [(r.begin, r, False) for r in records]
    out += [(r.end, r, True) for r in records if r.end]
    return sorted(out, key=lambda s: s[0])


def is_filler(r):
    """Most writes of zeros: Berkeley DB fills the rest of its log with them after a crash, in
    thousands of calls, and one state in the middle is like the other."""
    return r.call == shim.WRITE and r.size >= PAGE and r.begin % FILLERS and not any(r.data)


def cuts(disk, records):
    """Goes through the record; yields the position after each step that changes
    what may be on the disk. Before the first one: an untouched disk."""
    ops = {}
    yield 0
    for position, r, is_end in steps(records):
        if not is_end:
            op = ops[r.begin] = disk.begin(r)
            if op and not is_filler(r):
                yield position
        elif disk.end(r, ops.pop(r.begin, None)):
            yield position


def rng_for(seed, position, policy, turn=0):
    return random.Random(f"{seed} {position} {policy} {turn}")
