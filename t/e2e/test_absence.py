"""B89: when qmgr closes a channel while both processes live, nobody would bring
them together again; the service ends, and master starts it anew."""
import pytest

from ipc import FakeMaster


@pytest.mark.parametrize("program, listen", [("smtpd", ["127.0.0.1:0"]), ("resolve", [])])
def test_B89_without_qmgr_the_process_ends_and_makes_room_for_another(program, listen):
    master = FakeMaster(program, listen=listen)
    qmgr = master.peer("qmgr")
    if program == "smtpd":
        qmgr.send("ipc_spool_state", state=0, commit_credit=10, byte_credit=1 << 20)
    else:
        qmgr.send("ipc_resolve_request", tag=1, recipient="a@[192.0.2.1]")
        qmgr.expect("ipc_resolve_reply")
    qmgr.close()
    assert master.process.wait(40) == 0
    master.wait_log("error: no channel to qmgr")
    master.stop()
