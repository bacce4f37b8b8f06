"""AUTH in smtpd, with a stand-in for quota that answers late, wrongly or not at all."""
import base64
import os
import time

import pytest
from memory import in_memory
from patience import stretched
from postern import wait_until
from smtpd_rig import MESSAGE, Smtpd

OK, FAILED, DENIED, TOO_MANY, TEMPORARY, NONE = range(6)
HOLD = 32


def b64(text):
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


PLAIN = b64("\0web\0secret")


class Accounts:
    """smtpd with a stand-in for quota; AUTH without TLS unless asked otherwise."""

    def __init__(self, **config):
        config = {"accounts_enable": "yes", "smtpd_sasl_auth_enable": "yes",
                  "smtpd_tls_auth_only": "no", "mynetworks": "192.0.2.0/24", **config}
        self.smtpd = Smtpd(connect=False, **config)
        self.connect()
        # clients are not listened to before both are known
        self.smtpd.qmgr = self.smtpd.master.peer("qmgr")
        self.smtpd.qmgr.send("ipc_spool_state", state=0, commit_credit=1000, byte_credit=1 << 24)

    def connect(self, credit=1000):
        self.quota = self.smtpd.master.peer("quota")
        self.quota.send("ipc_quota_state", credit=credit)

    def __enter__(self):
        return self

    def __exit__(self, *how):
        self.quota.close()
        self.smtpd.__exit__(*how)

    def client(self, hello=True):
        c = self.smtpd.client()
        if hello:
            c.expect("EHLO client.test", "250")
        return c

    def asked(self, name="ipc_auth_password"):
        return self.quota.expect(name, skip=("ipc_auth_abort",))

    def grant(self, tag, **fields):
        self.quota.send("ipc_auth_result", **{
            "tag": tag, "status": OK, "ticket": "ticket", "account": "acme", "user": "web",
            **fields})

    def login(self, c, **fields):
        c.send(f"AUTH PLAIN {PLAIN}\r\n")
        self.grant(self.asked().tag, **fields)
        assert c.reply() == (235, "2.7.0 Authentication successful")

    def mail(self, c, sender="a@acme.test", parameters="", **fields):
        """MAIL, and what quota answers."""
        c.send(f"MAIL FROM:<{sender}>{parameters}\r\n")
        question = self.quota.expect("ipc_mail_request")
        self.quota.send("ipc_mail_answer", **{
            "tag": question.tag, "recipients": 1000, "more_code": 452, "more_enhanced": "4.5.3",
            "more_text": "Error: enough", **fields})
        return question, c.reply()

    def reserved(self, **fields):
        question = self.quota.expect("ipc_reserve")
        self.quota.send("ipc_reserved", **{"tag": question.tag, "owner": "acme/web", **fields})
        return question

    def message(self, c, content=MESSAGE):
        assert self.mail(c)[1][0] == 250
        c.expect("RCPT TO:<b@dst.test>", "250")
        c.data(content + b".\r\n")


@pytest.fixture(name="rig")
def _rig():
    with Accounts() as a:
        yield a


# ---- the exchange ---------------------------------------------------------------------


def test_plain_and_login(rig):
    dialogues = [[f"AUTH PLAIN {PLAIN}"], ["AUTH plain", PLAIN], ["AUTH LOGIN", b64("web"), b64("secret")],
                 [f"AUTH LOGIN {b64('web')}", b64("secret")],
                 [f"AUTH PLAIN {b64(chr(0).join(('web', 'web', 'secret')))}"]]
    prompts = {"AUTH LOGIN": "VXNlcm5hbWU6", "AUTH plain": ""}
    for lines in dialogues:
        with rig.client() as c:
            for line in lines[:-1]:
                code, text = c.command(line)
                assert (code, text) == (334, prompts.get(line, "UGFzc3dvcmQ6"))
            c.send(lines[-1] + "\r\n")
            question = rig.asked()
            assert (question.user, question.password) == (b"web", b"secret")
            assert question.client == b"\x7f\0\0\1" and question.flags == 0
            rig.grant(question.tag)
            assert c.reply() == (235, "2.7.0 Authentication successful")
            c.expect("RSET", "250")
            c.expect("EHLO client.test", "250")
            c.expect("AUTH PLAIN", "503")  # RSET and EHLO do not forget it


def test_whom_a_client_wants_to_act_as(rig):
    """quota knows which names are the same."""
    for domain, text, user, authorization in [
            ("", "root\0web\0secret", b"web", b"root"), ("", "\0web\0secret", b"web", b""),
            ("acme.test", "WEB@acme.test\0web\0secret", b"web@acme.test", b"WEB@acme.test"),
            ("acme.test", "web\0web\0secret", b"web@acme.test", b"web@acme.test"),
            ("acme.test", "\0web\0secret", b"web@acme.test", b"")]:
        with Accounts(smtpd_sasl_local_domain=domain) as other, other.client() as c:
            c.send(f"AUTH PLAIN {b64(text)}\r\n")
            question = other.asked()
            assert (question.user, question.authorization) == (user, authorization)


def test_what_ehlo_says(rig):
    with rig.smtpd.client() as c:
        lines = c.expect("EHLO client.test", "250").split("\n")
        assert "AUTH SCRAM-SHA-256 PLAIN LOGIN" in lines and "SIZE 52428800" in lines
        rig.login(c, size_limit=5000000, recipient_limit=50)
        lines = c.expect("EHLO client.test", "250").split("\n")
        assert not [l for l in lines if l.startswith("AUTH")]
        assert "SIZE 5000000" in lines and "LIMITS RCPTMAX=50" in lines
    for config, words in [({"smtpd_sasl_security_options": "noplaintext"}, "AUTH SCRAM-SHA-256"),
                          ({"smtpd_discard_ehlo_keywords": "auth"}, None),
                          ({"scram_iterations": "0"}, "AUTH PLAIN LOGIN"),
                          ({"smtpd_sasl_mechanism_filter": "login, Plain"}, "AUTH PLAIN LOGIN"),
                          ({"smtpd_sasl_mechanism_filter": "!plain, static:all"},
                           "AUTH SCRAM-SHA-256 LOGIN"),
                          ({"smtpd_sasl_mechanism_filter": "external"}, None),
                          ({"smtpd_tls_auth_only": "yes"}, None)]:
        with Accounts(**config) as other, other.smtpd.client() as c:
            lines = c.expect("EHLO client.test", "250").split("\n")
            assert ([l for l in lines if l.startswith("AUTH")] or [None])[0] == words, config


def test_B13_auth_in_clear():
    with Accounts(smtpd_tls_auth_only="yes") as rig, rig.client() as c:
        c.expect(f"AUTH PLAIN {PLAIN}", "538 5.7.11 Encryption required")
        c.expect("AUTH LOGIN", "538 5.7.11")
        c.expect("NOOP", "250")
        rig.quota.send("ipc_auth_result", tag=1)  # nobody has asked: dropped
        c.expect("NOOP", "250")


def test_filtered_mechanism_is_not_taken_either():
    with Accounts(smtpd_sasl_mechanism_filter="plain") as rig, rig.client() as c:
        c.expect("AUTH SCRAM-SHA-256", "504 5.5.4")
        c.expect("AUTH LOGIN", "504 5.5.4")
        rig.login(c)


def test_auth_is_off_unless_it_is_configured():
    with Smtpd() as smtpd, smtpd.client() as c:
        assert "AUTH" not in c.expect("EHLO client.test", "250")
        c.expect("AUTH PLAIN", "503 5.5.1 Error: authentication not enabled")


@pytest.mark.parametrize("lines, start", [
    (["AUTH"], "501 5.5.4"),
    (["AUTH PLAIN a b"], "501 5.5.4"),
    (["AUTH CRAM-MD5"], "504 5.5.4"),
    (["AUTH PLAIN !!!!"], "501 5.5.2"),
    (["AUTH PLAIN AGE"], "501 5.5.2"),            # no padding
    (["AUTH PLAIN AGFhYQBi\tYg=="], "500"),       # a control byte: B06
    (["AUTH PLAIN", " " + PLAIN], "501 5.5.2"),
    (["AUTH PLAIN", PLAIN + "="], "501 5.5.2"),
    (["AUTH PLAIN", "AB=="], "501 5.5.2"),        # bits that belong to no byte
    (["AUTH PLAIN", ""], "501 5.5.2"),
    (["AUTH PLAIN ="], "501 5.5.2"),
    (["AUTH PLAIN " + b64("web\0secret")], "501 5.5.2"),
    (["AUTH PLAIN " + b64("\0\0secret")], "501 5.5.2"),
    (["AUTH PLAIN " + b64("\0web\0")], "501 5.5.2"),
    (["AUTH PLAIN " + b64("\0web\0se\0cret")], "501 5.5.2"),
    (["AUTH PLAIN " + b64("\0" + "u" * 256 + "\0x")], "501 5.5.2"),
    (["AUTH PLAIN", b64("\0web\0" + "p" * 1025)], "501 5.5.2"),
    (["AUTH PLAIN", "*"], "501 5.7.0"),
    (["AUTH LOGIN", "*"], "501 5.7.0"),
    (["AUTH LOGIN", b64("web"), "*"], "501 5.7.0"),
    (["AUTH LOGIN", ""], "501 5.5.2"),
    (["AUTH LOGIN", b64("web"), ""], "501 5.5.2"),
    (["AUTH PLAIN", "QUIT"], "501 5.5.2"),
], ids=lambda v: v if isinstance(v, str) else None)
def test_B14_bad_tokens(rig, lines, start):
    with rig.client() as c:
        for line in lines[:-1]:
            c.expect(line, "334")
        c.expect(lines[-1], start)
        c.expect("NOOP", "250")  # it is a command again
        rig.login(c)
    assert "secret" not in rig.smtpd.log() and PLAIN[:12] not in rig.smtpd.log()


def test_B14_tokens_up_to_the_limit_and_beyond(rig):
    with rig.client() as c:
        c.expect("AUTH PLAIN", "334")
        c.expect("A" * 12284, "501 5.5.2")
        c.expect("AUTH PLAIN", "334")
        c.send("A" * 1000000 + "\r\n")
        assert c.reply()[0] == 500
        assert c.closed()
    with rig.client() as c:
        c.expect("AUTH PLAIN", "334")
        for part in (PLAIN[:3], PLAIN[3:], "\r", "\n"):
            c.send(part)
        rig.grant(rig.asked().tag)
        assert c.reply()[0] == 235


@pytest.mark.skipif(os.getuid() != 0, reason="another process's memory is read")
def test_B14_passwords_are_wiped_from_memory(rig):
    secret = "0verl00ked-Pa55word"
    tokens = [b64(f"\0web\0{secret}"), b64(secret)]
    with rig.client() as c, rig.client() as quiet:
        rig.login(quiet)
        for lines in ([f"AUTH PLAIN {tokens[0]}"], ["AUTH PLAIN", tokens[0]],
                      ["AUTH LOGIN", b64("web"), tokens[1]], ["AUTH NONE " + tokens[0]],
                      [tokens[1]]):
            for line in lines[:-1]:
                c.expect(line, "334")
            c.send(lines[-1][:20])
            c.send(lines[-1][20:] + "\r\n")
            if lines[0].startswith(("AUTH P", "AUTH L")):
                question = rig.asked()
                assert secret.encode() in question.password
                rig.quota.send("ipc_auth_result", tag=question.tag, status=FAILED)
            assert c.reply()[0] in (535, 504, 500)
        pid = rig.smtpd.master.process.pid
        for needle in [secret, *(t[:-4] for t in tokens)]:
            assert in_memory(pid, needle.encode()) == 0, needle
        assert in_memory(pid, b"client.test")  # it can be seen
    assert secret not in rig.smtpd.log()


def test_B15_auth_twice_and_inside_a_transaction(rig):
    with rig.client(hello=False) as c:
        c.expect(f"AUTH PLAIN {PLAIN}", "503 5.5.1 Error: send EHLO first")
        c.expect("HELO client.test", "250")
        c.expect(f"AUTH PLAIN {PLAIN}", "503 5.5.1")
        c.expect("EHLO client.test", "250")
        c.expect("MAIL FROM:<a@acme.test>", "250")
        c.expect(f"AUTH PLAIN {PLAIN}", "503 5.5.1 Error: MAIL transaction in progress")
        c.expect("RSET", "250")
        rig.login(c)
        c.expect(f"AUTH PLAIN {PLAIN}", "503 5.5.1 Error: already authenticated")
        rig.mail(c)
        c.expect(f"AUTH PLAIN {PLAIN}", "503 5.5.1")


def test_commands_behind_auth_wait_for_it(rig):
    with rig.client() as c:
        c.send(f"AUTH PLAIN {PLAIN}\r\nNOOP\r\nMAIL FROM:<a@acme.test>\r\n")
        rig.grant(rig.asked().tag)
        question = rig.quota.expect("ipc_mail_request")
        assert question.ticket == b"ticket" and question.sender == b"a@acme.test"
        rig.quota.send("ipc_mail_answer", tag=question.tag, recipients=1)
        assert [c.reply()[0] for _ in range(3)] == [235, 250, 250]


def test_scram_goes_through(rig):
    with rig.client() as c:
        c.send("AUTH SCRAM-SHA-256 " + b64("n,,n=web,r=nonce") + "\r\n")
        question = rig.asked("ipc_auth_scram")
        assert question.message == b"n,,n=web,r=nonce"
        rig.quota.send("ipc_auth_challenge", tag=question.tag, message="r=nonce2,s=c2FsdA==,i=4096")
        assert c.reply() == (334, b64("r=nonce2,s=c2FsdA==,i=4096"))
        c.send(b64("c=biws,r=nonce2,p=cHJvb2Y=") + "\r\n")
        answer = rig.asked("ipc_auth_response")
        assert answer.tag == question.tag and answer.message == b"c=biws,r=nonce2,p=cHJvb2Y="
        rig.grant(question.tag, message="v=c2lnbmF0dXJl")
        assert c.reply() == (334, b64("v=c2lnbmF0dXJl"))
        c.expect("", "235 2.7.0")
        assert rig.mail(c)[1][0] == 250
    with rig.client() as c:
        c.expect("AUTH SCRAM-SHA-256", "334")
        c.send(b64("n,,n=web,r=nonce") + "\r\n")
        question = rig.asked("ipc_auth_scram")
        rig.quota.send("ipc_auth_challenge", tag=question.tag, message="r=x,s=c2FsdA==,i=4096")
        assert c.reply()[0] == 334
        c.expect("*", "501 5.7.0")
        assert rig.quota.expect("ipc_auth_abort").tag == question.tag
        rig.login(c)


# ---- answers to MAIL that hold for a moment ---------------------------------------------------


def mail_unasked(c, sender="a@acme.test", parameters=""):
    c.expect(f"MAIL FROM:<{sender}>{parameters}", "250")
    c.expect("RCPT TO:<b@dst.test>", "250")
    c.expect("RSET", "250")


def test_a_good_answer_spares_the_next_question_and_not_the_reservation(rig):
    with rig.client() as c, rig.client() as other:
        rig.login(c)
        rig.login(other)
        assert rig.mail(c, good_for=10000, good_size=5000)[1][0] == 250
        c.expect("RSET", "250")
        mail_unasked(c)
        mail_unasked(other, parameters=" SIZE=5000")  # the same ticket
        c.expect("MAIL FROM:<a@acme.test>", "250")
        c.expect("RCPT TO:<b@dst.test>", "250")
        c.data(MESSAGE + b".\r\n")
        rig.reserved(code=550, owner="", enhanced="5.7.1", text="Error: used up")
        assert c.reply() == (550, "5.7.1 Error: used up")
        # larger, of another sender, of another login: asked
        rig.mail(c, parameters=" SIZE=5001")
        c.expect("RSET", "250")
        rig.mail(c, sender="c@acme.test")
    with rig.client() as c:
        rig.login(c, ticket="another")
        rig.mail(c)


def test_a_good_answer_brings_its_limit_of_recipients(rig):
    with rig.client() as c:
        rig.login(c)
        rig.mail(c, recipients=1, good_for=10000, good_size=1)
        c.expect("RSET", "250")
        c.expect("MAIL FROM:<a@acme.test>", "250")
        c.expect("RCPT TO:<b@dst.test>", "250")
        c.expect("RCPT TO:<c@dst.test>", "452 4.5.3 Error: enough")


@pytest.mark.parametrize("end", ["forget", "time", "channel", "refused", "too long"])
def test_a_good_answer_ends(rig, end):
    good = {"time": 1, "too long": 10001}.get(end, 10000)
    with rig.client() as c:
        rig.login(c)
        if end == "refused":
            rig.mail(c, code=450, enhanced="4.7.1", text="later", good_for=good, good_size=1000)
        else:
            rig.mail(c, good_for=good, good_size=1000)
        c.expect("RSET", "250")
        if end == "forget":
            rig.quota.send("ipc_mail_forget", answers=1)
            with rig.client() as other:  # whose answer comes behind it
                rig.login(other)
        elif end == "time":
            began = time.monotonic()
            wait_until(lambda: time.monotonic() > began + 0.002, 5)
        elif end == "channel":
            rig.quota.close()
            wait_until(lambda: "quota is gone" in rig.smtpd.log(), 10)
            c.expect("MAIL FROM:<a@acme.test>", "451 4.3.0")
            rig.connect()
            with rig.client() as other:
                wait_until(lambda: works(rig, other), 10, "AUTH after quota is back")
        rig.mail(c)


# ---- answers ----------------------------------------------------------------------------


def test_failures_and_their_log_lines(rig):
    for status, reason, start, words in [
            (FAILED, "wrong password", "535 5.7.8 Error: authentication failed",
             "warning: unknown[127.0.0.1]: SASL PLAIN authentication failed: wrong password, "
             "sasl_username=web"),
            (DENIED, "the user is suspended",
             "535 5.7.8 Error: authentication failed: the user is suspended",
             "SASL PLAIN authentication failed: the user is suspended, sasl_username=web"),
            (TEMPORARY, "too many logins at the same time", "454 4.7.0",
             "SASL PLAIN authentication is not possible now: too many logins")]:
        with rig.client() as c:
            c.send(f"AUTH PLAIN {PLAIN}\r\n")
            rig.quota.send("ipc_auth_result", tag=rig.asked().tag, status=status, reason=reason,
                           user="web")
            code, text = c.reply()
            assert f"{code} {text}".startswith(start)
            assert words in rig.smtpd.log()
            c.expect("MAIL FROM:<a@acme.test>", "250")
            c.expect("RCPT TO:<b@dst.test>", "554 5.7.1")
            c.expect("RSET", "250")
            rig.login(c)


def test_B44_a_user_s_name_cannot_forge_log_lines(rig):
    with rig.client() as c:
        c.send(f"AUTH LOGIN {b64('web')}\r\n")
        assert c.reply()[0] == 334
        c.send(b64("x") + "\r\n")
        rig.quota.send("ipc_auth_result", tag=rig.asked().tag, status=FAILED, reason="no such user",
                       user=b"\x1b[2J\r\nwarning: forged")
        assert c.reply()[0] == 535
    line = [l for l in rig.smtpd.log().splitlines() if "no such user" in l]
    assert len(line) == 1 and "\x1b" not in line[0]


def test_B16_failures_are_held_back_without_a_thread(rig):
    sessions = [rig.client() for _ in range(20)]
    begin = time.monotonic()
    for c in sessions:
        c.send(f"AUTH PLAIN {PLAIN}\r\n")
    for _ in sessions:
        rig.quota.send("ipc_auth_result", tag=rig.asked().tag, status=FAILED, delay=3000,
                       reason="wrong password", user="web")
    with rig.client() as c:  # nobody else waits
        rig.login(c)
        assert time.monotonic() - begin < 3
    for c in sessions:
        assert c.reply()[0] == 535
        assert time.monotonic() - begin > 2.9
        c.sock.close()
    with rig.client() as c:
        c.send(f"AUTH PLAIN {PLAIN}\r\n")
        rig.quota.send("ipc_auth_result", tag=rig.asked().tag, status=TOO_MANY, delay=200,
                       reason="too many failed logins from this address", user="web")
        code, text = c.reply()
        assert code == 421 and text.startswith("4.7.0 ") and "too many failed logins" in text
        assert c.closed()


def test_B16_a_session_that_guesses_is_ended(rig):
    with rig.client() as c:
        for n in range(3):
            c.send(f"AUTH PLAIN {PLAIN}\r\n")
            rig.quota.send("ipc_auth_result", tag=rig.asked().tag, status=FAILED, user="web",
                           reason="wrong password")
            assert c.reply()[0] == 535, n
    with Accounts(smtpd_hard_error_limit="3", smtpd_soft_error_limit="3") as own, own.client() as c:
        replies = []
        for n in range(3):
            c.send(f"AUTH PLAIN {PLAIN}\r\n")
            own.quota.send("ipc_auth_result", tag=own.asked().tag, status=FAILED, user="web",
                           reason="wrong password")
            replies.append(c.reply()[0])
        assert replies == [535, 535, 535] and c.reply()[0] == 421 and c.closed()


# ---- without quota --------------------------------------------------------------------------


def test_F16_quota_killed_while_it_is_asked(rig):
    with rig.client() as asking, rig.client() as scram, rig.client() as sending, \
            rig.client() as late:
        scram.send("AUTH SCRAM-SHA-256 " + b64("n,,n=web,r=x") + "\r\n")
        question = rig.asked("ipc_auth_scram")
        rig.quota.send("ipc_auth_challenge", tag=question.tag, message="r=x,s=c2FsdA==,i=4096")
        assert scram.reply()[0] == 334
        rig.login(sending)
        rig.login(late)
        asking.send(f"AUTH PLAIN {PLAIN}\r\n")
        rig.asked()
        sending.send("MAIL FROM:<a@acme.test>\r\n")
        rig.quota.expect("ipc_mail_request")
        rig.message(late)
        rig.quota.expect("ipc_reserve")
        rig.quota.close()
        assert asking.reply()[:2] == (454, "4.7.0 Temporary authentication failure")
        assert sending.reply()[0] == 451 and late.reply()[0] == 451
        scram.expect(b64("c=biws,r=x,p=eA=="), "454 4.7.0")
        asking.expect(f"AUTH PLAIN {PLAIN}", "454 4.7.0")
        sending.expect("MAIL FROM:<a@acme.test>", "451 4.3.0")
        assert "SASL PLAIN authentication failed: Connection lost to authentication server" \
            in rig.smtpd.log()
        rig.connect()
        wait_until(lambda: works(rig, asking), 10, "AUTH after quota is back")
        assert rig.mail(sending)[1][0] == 250  # the session and its login have survived


def works(rig, c):
    c.send(f"AUTH PLAIN {PLAIN}\r\n")
    question = rig.quota.receive(0.3)
    if question is not None:
        rig.grant(question.tag)
    return c.reply()[0] == 235


def test_B94_no_more_questions_than_quota_s_credit(rig):
    rig.quota.send("ipc_quota_state", credit=1)
    with rig.client() as a, rig.client() as b:
        a.send(f"AUTH PLAIN {PLAIN}\r\n")
        question = rig.asked()
        b.expect(f"AUTH PLAIN {PLAIN}", "454 4.7.0")
        rig.grant(question.tag)
        assert a.reply()[0] == 235


@pytest.mark.parametrize("answer", [
    ("ipc_mail_answer", {"recipients": 5}),
    ("ipc_reserved", {"owner": "acme"}),
    ("ipc_charged", {"batch": 1})], ids=lambda a: a[0])
def test_B89_an_answer_to_another_question_closes_the_channel(rig, answer):
    name, fields = answer
    with rig.client() as c:
        c.send(f"AUTH PLAIN {PLAIN}\r\n")
        tag = rig.asked().tag
        rig.quota.send(name, **({"tag": tag} if name != "ipc_charged" else {}), **fields)
        assert c.reply()[0] == 454
        c.expect("NOOP", "250")


# ---- mail of accounts --------------------------------------------------------------------------


@pytest.mark.parametrize("own, most, said, gets", [
    (2, 2, b"transactional", 2),  # the operator's class, whatever its mail says of itself
    (2, 2, b"normal", 2),
    (0, 0, b"transactional", 0),
    (0, 0, b"bulk", 2),
    (2, 0, b"normal", 0),
    (0, 1, b"transactional", 1),
    (1, 1, b"bulk", 2),
])
def test_a_header_lowers_the_class_freely_and_raises_it_where_allowed(rig, own, most, said, gets):
    with rig.client() as c:
        rig.login(c)
        rig.message(c, b"X-Mail-Class: " + said + b"\r\n" + MESSAGE)
        rig.reserved(mail_class=own, class_most=most)
        assert rig.smtpd.accept(c).mail_class == gets


def test_owner_class_and_size_of_a_message(rig):
    with rig.client() as c:
        rig.login(c)
        content = (b"From: Boss <a@acme.test>, \"B, C\" <b@acme.test>\r\nSender: (x) c@acme.test\r\n"
                   + MESSAGE)
        rig.message(c, content)
        question = rig.reserved(mail_class=2, flags=HOLD)
        assert [a.address for a in question.authors] == [b"a@acme.test", b"b@acme.test",
                                                         b"c@acme.test"]
        assert question.recipients == 1 and question.sender == b"a@acme.test"
        commit = rig.smtpd.accept(c)
        assert commit.account == b"acme/web" and commit.mail_class == 2 and commit.flags & HOLD
        assert commit.id == question.id
        assert question.size == len(commit.body) and commit.added == 0
        assert b"with ESMTPA id" in commit.prefix
        assert "client=unknown[127.0.0.1], sasl_method=PLAIN, sasl_username=web" in rig.smtpd.log()
        assert rig.quota.receive(0.1) is None  # what was committed is not given back


def test_limits_at_mail_and_rcpt(rig):
    with rig.client() as c:
        rig.login(c, size_limit=2000)
        question, reply = rig.mail(c, parameters=" SIZE=3000 AUTH=<>", code=552, enhanced="5.3.4",
                                   text="Error: a message may have 2000 bytes")
        assert question.size == 3000 and reply == (552, "5.3.4 Error: a message may have 2000 bytes")
        rig.smtpd.wait_log(r"reject: MAIL from unknown\[127.0.0.1\]: 552 5.3.4")
        assert rig.mail(c, recipients=2, more_text="Error: a message may have 2 recipients",
                        size_limit=2000)[1][0] == 250
        c.expect("RCPT TO:<1@dst.test>", "250")
        c.expect("RCPT TO:<2@dst.test>", "250")
        c.expect("RCPT TO:<3@dst.test>", "452 4.5.3 Error: a message may have 2 recipients")
        c.data(MESSAGE + b"x" * 900 + b"\r\n" + b"y" * 900 + b"\r\n" + b"z" * 900 + b"\r\n.\r\n")
        assert c.reply() == (552, "5.3.4 Error: a message may have 2000 bytes")
        rig.message(c)  # the next one is as if nothing had been
        rig.reserved()
        rig.smtpd.accept(c)


def announced(text):
    return [l for l in text.split("\n") if l.startswith(("SIZE", "LIMITS"))]


def test_limits_that_change_in_a_session(rig):
    """They come with the answer to MAIL; EHLO asks only when they may be others."""
    with rig.client() as c:
        rig.login(c, size_limit=2000, recipient_limit=5)
        assert announced(c.expect("EHLO x", "250")) == ["SIZE 2000", "LIMITS RCPTMAX=5"]
        rig.quota.send("ipc_mail_forget", answers=1)
        rig.mail(c, size_limit=3000, recipient_limit=6)  # which comes behind it
        assert announced(c.expect("EHLO x", "250")) == ["SIZE 3000", "LIMITS RCPTMAX=6"]
        rig.mail(c, size_limit=3500, recipient_limit=7)
        c.expect("RCPT TO:<b@dst.test>", "250")
        c.data(MESSAGE + (b"x" * 98 + b"\r\n") * 32 + b".\r\n")
        rig.reserved()
        rig.smtpd.accept(c)
        rig.quota.send("ipc_mail_forget", answers=1)
        rig.mail(c, size_limit=3500, recipient_limit=7)
        rig.quota.send("ipc_mail_forget", answers=1)
        with rig.client() as other:  # its login comes behind the word of the change
            rig.login(other, size_limit=10)
        for known, expected in ((0, ["SIZE 3500", "LIMITS RCPTMAX=7"]), (1, ["SIZE 4000", "LIMITS RCPTMAX=8"])):
            c.send("EHLO x\r\n")
            question = rig.quota.expect("ipc_limits_request")
            assert question.ticket == b"ticket"
            rig.quota.send("ipc_limits", tag=question.tag, known=known, size_limit=4000,
                           recipient_limit=8)
            assert announced(c.reply()[1]) == expected
        assert announced(c.expect("EHLO x", "250")) == ["SIZE 4000", "LIMITS RCPTMAX=8"]


def test_F16_limits_that_nobody_tells(rig):
    with rig.client() as c:
        rig.login(c, size_limit=2000, recipient_limit=5)
        rig.quota.send("ipc_mail_forget", answers=1)
        rig.mail(c, size_limit=2000, recipient_limit=5)
        rig.quota.send("ipc_mail_forget", answers=1)
        with rig.client() as other:
            rig.login(other)
        c.send("EHLO x\r\n")
        rig.quota.expect("ipc_limits_request")
        rig.quota.close()
        assert announced(c.reply()[1]) == ["SIZE 2000", "LIMITS RCPTMAX=5"]
        assert announced(c.expect("EHLO x", "250")) == ["SIZE 2000", "LIMITS RCPTMAX=5"]


@pytest.mark.parametrize("how", ["refused", "dropped", "client"])
def test_what_is_not_committed_is_given_back(rig, how):
    with rig.client() as c:
        rig.login(c)
        rig.message(c)
        if how == "client":  # it leaves while quota is asked
            question = rig.quota.expect("ipc_reserve")
            c.sock.close()
            rig.quota.send("ipc_reserved", tag=question.tag, owner="acme/web")
            rig.smtpd.qmgr.send("ipc_committed", tag=rig.smtpd.commit().tag)
            assert rig.quota.receive(0.1) is None
            return
        question = rig.reserved()
        commit = rig.smtpd.commit()
        if how == "refused":
            rig.smtpd.qmgr.send("ipc_refused", tag=commit.tag, code=452, enhanced="4.3.1",
                                text="full")
        else:
            rig.smtpd.qmgr.close()
        assert c.reply()[0] in (451, 452)
        assert rig.quota.expect("ipc_release").id == question.id


def test_refused_at_the_end_of_data(rig):
    with rig.client() as c:
        rig.login(c)
        rig.message(c)
        rig.reserved(owner="", code=550, enhanced="5.7.1", text="Error: used up\r\n250 forged")
        code, text = c.reply()
        assert code == 550 and text.startswith("5.7.1 Error: used up") and "\n" not in text
        rig.message(c)
        rig.reserved(owner="")  # neither a refusal nor an owner: not taken
        assert c.reply()[0] == 451
        assert rig.quota.expect("ipc_release")


@pytest.mark.parametrize("header, start", [
    (b"From: ceo@bank.test <a@acme.test> <b@acme.test>\r\n", "550 5.6.0"),
    (b"From: \"unclosed\r\n", "550 5.6.0"),
    (b"From: nobody:;\r\n", "550 5.6.0"),
    (b"From:\r\n", "550 5.6.0"),
    (b"From: ceo@bank.test@acme.test\r\n", "550 5.6.0"),
    (b"From: 'ceo@bank.test' <a@acme.test>\r\n", "550 5.6.0"),
    (b"From: [ceo@bank.test] <a@acme.test>\r\n", "550 5.6.0"),
    (b"From: " + b", ".join(b"u%d@acme.test" % i for i in range(60)) + b"\r\n", "550 5.6.0"),
    (b"From: " + b"(" + b"x" * 20000 + b") a@acme.test\r\n", "550 5.6.0"),
    (b"Sender: =\r\nFrom: a@acme.test\r\n", "550 5.6.0")], ids=range(10))
def test_B33_authors_that_cannot_be_read(rig, header, start):
    with rig.client() as c:
        rig.login(c)
        rig.message(c, header + MESSAGE)
        code, text = c.reply()
        assert f"{code} {text}".startswith(start)
        rig.message(c, header.replace(b"\r\n", b"\r\n", 1) + MESSAGE)
        assert c.reply()[0] == 550
    with rig.client() as c:
        rig.login(c, permissions=1)  # any sender: nobody looks
        rig.message(c, header + MESSAGE)
        assert rig.reserved().authors == []
        rig.smtpd.accept(c)


@pytest.mark.parametrize("header, authors", [
    (b"From: ceo@bank.test <a@acme.test>\r\n", ["ceo@bank.test", "a@acme.test"]),
    (b"From: The\r\n ceo@bank.test\r\n <a@acme.test>\r\n", ["ceo@bank.test", "a@acme.test"]),
    (b"From: ceo @ bank.test <a@acme.test>\r\n", ["ceo@bank.test", "a@acme.test"]),
    (b"From: ceo@bank.test: a@acme.test;\r\n", ["ceo@bank.test", "a@acme.test"]),
    (b"From: a@acme.test\r\nSender: ceo@bank.test <a@acme.test>\r\n",
     ["a@acme.test", "ceo@bank.test", "a@acme.test"]),
    (b"From: a@acme.test, ceo@bank.test\r\n", ["a@acme.test", "ceo@bank.test"]),
    (b"From: a@acme.test\r\nSender: b@acme.test\r\nSender: ceo@bank.test\r\n",
     ["a@acme.test", "b@acme.test", "ceo@bank.test"]),
    # legal, and not rare: mailing lists and address books put addresses into quoted names
    (b"From: \"ceo@bank.test\" <a@acme.test>\r\n", ["a@acme.test"]),
    (b"From: =?utf-8?q?ceo=40bank=2Etest?= <a@acme.test>\r\n", ["a@acme.test"]),
    (b"From: a@acme.test (ceo@bank.test)\r\n", ["a@acme.test"])], ids=range(10))
def test_B33_whom_a_message_names(rig, header, authors):
    """Who is asked about at the end of data: all that may be taken for an author."""
    with rig.client() as c:
        rig.login(c)
        rig.message(c, header + MESSAGE)
        assert [a.address.decode() for a in rig.reserved().authors] == authors
        rig.smtpd.accept(c)


def test_B34_several_from_fields():
    with Smtpd() as smtpd, smtpd.client() as c:
        c.transaction(b"From: a@src.test\r\nFrom: b@src.test\r\n" + MESSAGE)
        assert c.reply() == (550, "5.6.0 Error: the message has more than one From field")
        c.transaction(b"From: a@src.test\r\n" + MESSAGE)
        smtpd.accept(c)


# ---- clients that do not log in ---------------------------------------------------------------------


def test_clients_of_mynetworks_belong_to_an_account():
    with Accounts(mynetworks="127.0.0.0/8", mynetworks_account="own") as rig, rig.client() as c:
        c.send("MAIL FROM:<a@acme.test>\r\n")
        question = rig.quota.expect("ipc_client_account")
        assert question.client == b"\x7f\0\0\1"
        rig.grant(question.tag, user="", account="own", ticket="own's")
        question = rig.quota.expect("ipc_mail_request")
        assert question.ticket == b"own's"
        rig.quota.send("ipc_mail_answer", tag=question.tag, recipients=10)
        assert c.reply()[0] == 250
        c.expect("RCPT TO:<b@dst.test>", "250")
        c.data(MESSAGE + b".\r\n")
        rig.reserved(owner="own")
        commit = rig.smtpd.accept(c)
        assert commit.account == b"own" and b"with ESMTP id" in commit.prefix
        assert "sasl_" not in rig.smtpd.log()
        assert rig.mail(c)[0].ticket == b"own's"  # asked once a session
        c.expect("RSET", "250")
        rig.login(c)
        assert rig.mail(c)[0].ticket == b"ticket"


def test_clients_of_mynetworks_without_an_account():
    with Accounts(mynetworks="127.0.0.0/8") as rig, rig.client() as c:
        c.transaction()
        assert rig.smtpd.accept(c).account == b""
    with Accounts(mynetworks="127.0.0.0/8", mynetworks_account="own") as rig:
        for status, code in [(NONE, 250), (DENIED, 550), (TEMPORARY, 451)]:
            with rig.client() as c:
                c.send("MAIL FROM:<a@acme.test>\r\n")
                rig.quota.send("ipc_auth_result", status=status, reason="ended",
                               tag=rig.quota.expect("ipc_client_account").tag)
                assert c.reply()[0] == code
        rig.quota.close()
        with rig.client() as c:
            c.expect("MAIL FROM:<a@acme.test>", "451 4.3.0")


def test_xclient_is_another_client():
    with Accounts(smtpd_authorized_xclient_hosts="127.0.0.0/8", mynetworks_account="own") as rig, \
            rig.client() as c:
        rig.login(c)
        c.expect("XCLIENT ADDR=198.51.100.1", "220")
        c.expect("EHLO other.test", "250")
        c.expect("MAIL FROM:<a@acme.test>", "250")
        c.expect("RCPT TO:<b@dst.test>", "554 5.7.1")
        c.expect("RSET", "250")
        c.expect("XCLIENT LOGIN=proxied ADDR=198.51.100.1", "220")
        c.expect("EHLO other.test", "250")
        # quota has not seen the password: it is asked whose user that is
        c.send("MAIL FROM:<a@acme.test>\r\n")
        question = rig.quota.expect("ipc_client_account")
        assert question.client == bytes([198, 51, 100, 1]) and question.user == b"proxied"
        rig.grant(question.tag, user="proxied", account="acme", ticket="proxied's")
        question = rig.quota.expect("ipc_mail_request")
        assert question.ticket == b"proxied's"
        rig.quota.send("ipc_mail_answer", recipients=10, tag=question.tag)
        assert c.reply()[0] == 250
        c.expect("RCPT TO:<b@dst.test>", "250")
        c.expect("RSET", "250")
        assert rig.mail(c)[0].ticket == b"proxied's"  # asked once
        c.expect("RSET", "250")
        # the next one that the proxy speaks for is somebody else
        c.expect("XCLIENT LOGIN=st+41tic ADDR=198.51.100.1", "220")
        c.expect("EHLO other.test", "250")
        c.send("MAIL FROM:<a@acme.test>\r\n")
        question = rig.quota.expect("ipc_client_account")
        assert question.user == b"stAtic"
        rig.quota.send("ipc_auth_result", tag=question.tag, status=DENIED,
                       reason="the user belongs to no account")
        assert c.reply() == (550, "5.7.1 Error: the user belongs to no account")
        # an account that stands for all who are unknown
        c.send("MAIL FROM:<a@acme.test>\r\n")
        rig.grant(rig.quota.expect("ipc_client_account").tag, user="", account="others")
        rig.quota.send("ipc_mail_answer", recipients=10,
                       tag=rig.quota.expect("ipc_mail_request").tag)
        assert c.reply()[0] == 250
        wait_until(lambda: "sasl_method=XCLIENT, sasl_username=proxied" in rig.smtpd.log())


def test_quota_that_does_not_answer():
    """The time is ACCOUNTS_SECONDS; the session goes on."""
    with Accounts() as rig, rig.client() as c, rig.client() as d:
        rig.login(d)
        begin = time.monotonic()
        c.send(f"AUTH PLAIN {PLAIN}\r\n")
        tag = rig.asked().tag
        d.send("MAIL FROM:<a@acme.test>\r\n")
        rig.quota.expect("ipc_mail_request")
        c.sock.settimeout(60)
        d.sock.settimeout(60)
        assert c.reply()[0] == 454 and d.reply()[0] == 451
        assert 25 < time.monotonic() - begin < stretched(45)
        rig.quota.send("ipc_auth_result", tag=tag, status=OK, ticket="ticket", user="web")
        c.expect("NOOP", "250")  # too late: it is not logged in
        c.expect("MAIL FROM:<a@acme.test>", "250")
        c.expect("RCPT TO:<b@dst.test>", "554")
