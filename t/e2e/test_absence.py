"""B89: when qmgr closes a channel while both processes live, nobody would bring
them together again; the service ends, and master starts it anew."""
from ipc import FakeMaster


def without_qmgr(program, listen, question):
    """A process that had a channel to qmgr."""
    master = FakeMaster(program, listen=listen)
    qmgr = master.peer("qmgr")
    question(qmgr)
    qmgr.close()
    return master


def be_ready(qmgr):
    qmgr.send("ipc_spool_state", state=0, commit_credit=10, byte_credit=1 << 20)


def ask(qmgr):
    qmgr.send("ipc_resolve_request", tag=1, recipient="a@[192.0.2.1]")
    qmgr.expect("ipc_resolve_reply")


def test_B89_without_qmgr_the_process_ends_and_makes_room_for_another():
    """Both at once: each waits some seconds for a qmgr that comes back."""
    for master in [without_qmgr("smtpd", ["127.0.0.1:0"], be_ready),
                   without_qmgr("resolve", [], ask)]:
        assert master.process.wait(40) == 0
        master.wait_log("error: no channel to qmgr")
        master.stop()
