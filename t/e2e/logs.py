"""The logs of what a test started, for the report of its failure: the last lines of
each, however long ago its directory was removed."""
import collections

LINES, WIDTH = 40, 240   # of a log that are shown
KEPT = 4                 # logs: what was started last

_files = collections.OrderedDict()   # path -> file
_earlier = set()                     # paths: of what was started before this test


def remember(path):
    """The log of what was just started, if it writes one."""
    try:
        file = open(path, encoding="utf-8", errors="replace")
    except OSError:
        return
    former = _files.pop(path, None)
    _earlier.discard(path)
    _files[path] = file
    if not former and len(_files) > KEPT:
        former = _files.popitem(last=False)[1]
    if former:
        former.close()


def begin():
    """A test begins."""
    _earlier.update(_files)


def tail(text, lines=LINES):
    """Its last lines, none of them long."""
    return "\n".join(line[:WIDTH] for line in text.splitlines()[-lines:])


def tails():
    """(title, last lines) of each that the test started, or else of the last one, which
    several tests share; what is shown is not shown again."""
    out, own = [], [path for path in _files if path not in _earlier]
    for path in own or list(_files)[-1:]:
        file = _files.pop(path)
        try:
            with open(path, encoding="utf-8", errors="replace") as f:
                text = f.read()
        except OSError:
            file.seek(0)
            text = file.read()
        if text:
            out.append((f"last lines of {path}", tail(text)))
        file.close()
    return out
