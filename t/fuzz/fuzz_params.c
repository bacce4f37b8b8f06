/* libraries: postern_core postern_smtp */
/* Parameters: what is accepted is printable, within the limits, and survives
 * being encoded and decoded. Input: a byte of options, the parameters. */
#include "core/mem.h"
#include "smtp/params.h"

static void check_printable(struct slice s, bool utf8)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c < 0x20 || c == 0x7f || (c >= 0x80 && !utf8))
            panic("not printable");
    }
}

static void check_mail(struct slice in)
{
    struct mail_params p;
    struct refusal why = {0};
    if (mail_params_parse(in, &p, &why) < 0) {
        if (why.code != 501 && why.code != 555)
            panic("no code");
        return;
    }
    struct buf wire = BUF_INIT(1000), back = BUF_INIT(1000);
    check_printable(mail_envid(&p), false);
    if (xtext_encode(mail_envid(&p), &wire) < 0 || xtext_decode(buf_slice(&wire), &back) < 0 ||
        !slice_eq(buf_slice(&back), mail_envid(&p)))
        panic("ENVID");
    buf_free(&wire);
    buf_free(&back);
}

static void check_rcpt(struct slice in, bool smtputf8, bool remote_smtputf8)
{
    struct rcpt_params p;
    struct refusal why = {0};
    if (rcpt_params_parse(in, smtputf8, &p, &why) < 0) {
        if (why.code != 501 && why.code != 555)
            panic("no code");
        return;
    }
    struct slice orcpt = rcpt_orcpt(&p);
    if (orcpt.len == 0)
        return;
    struct buf wire = BUF_INIT(10 * ORCPT_MAX), back = BUF_INIT(ORCPT_MAX);
    check_printable(orcpt, slice_casestarts(orcpt, SLICE("utf-8;")));
    if (orcpt_encode(orcpt, remote_smtputf8, &wire) < 0 ||
        orcpt_decode(buf_slice(&wire), remote_smtputf8, &back) < 0 ||
        !slice_eq(buf_slice(&back), orcpt))
        panic("ORCPT");
    check_printable(buf_slice(&wire), remote_smtputf8);
    if (slice_chr(buf_slice(&wire), ' ') < wire.len)
        panic("a blank on the wire");
    buf_free(&wire);
    buf_free(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    struct slice in = slice_make(data + 1, size - 1);
    check_mail(in);
    check_rcpt(in, data[0] & 1, data[0] & 2);
    /* what another process sent may be any bytes */
    struct buf out = BUF_INIT(100);
    orcpt_encode(in, data[0] & 2, &out);
    buf_free(&out);
    return 0;
}
