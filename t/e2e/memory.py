"""What is in the memory of another process (root may look)."""

# Larger areas are the sanitizer's table of what is addressable, without content.
ADDRESS_SANITIZER_TABLE = 1 << 30


def in_memory(pid, needle):
    """How often the bytes are in the writable memory of a process."""
    found = 0
    with open(f"/proc/{pid}/maps", encoding="ascii") as maps, open(f"/proc/{pid}/mem", "rb") as mem:
        for line in maps:
            area, mode = line.split()[:2]
            if not mode.startswith("rw") or "[v" in line:
                continue
            start, end = (int(x, 16) for x in area.split("-"))
            if end - start > ADDRESS_SANITIZER_TABLE:
                continue
            mem.seek(start)
            try:
                found += mem.read(end - start).count(needle)
            except OSError:
                continue
    return found
