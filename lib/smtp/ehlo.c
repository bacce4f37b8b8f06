#include "smtp/ehlo.h"

struct word {
    struct slice text;
    uint32_t bit;
};

static const struct word keywords[] = {
#define EHLO_KEYWORD(enumerator, bit, keyword) {{keyword, sizeof(keyword) - 1}, enumerator},
    EHLO_KEYWORDS
#undef EHLO_KEYWORD
};

static const struct word mechanisms[] = {
    {{"PLAIN", 5}, EHLO_AUTH_PLAIN},
    {{"LOGIN", 5}, EHLO_AUTH_LOGIN},
    {{"CRAM-MD5", 8}, EHLO_AUTH_CRAM_MD5},
};

static uint32_t find(const struct word *table, size_t count, struct slice text)
{
    for (size_t i = 0; i < count; i++)
        if (slice_caseeq(table[i].text, text))
            return table[i].bit;
    return 0;
}

/* RFC 9422 4: name=value; a zero says nothing. */
static void parse_limit(struct slice word, struct ehlo *out)
{
    struct slice value = word, name = slice_cut(&value, '=');
    uint64_t n;
    if (slice_u64(value, &n) < 0 || n == 0)
        return;
    if (slice_caseeq(name, SLICE("MAILMAX")))
        out->mail_max = n;
    else if (slice_caseeq(name, SLICE("RCPTMAX")))
        out->rcpt_max = n;
    else if (slice_caseeq(name, SLICE("RCPTDOMAINMAX")))
        out->rcpt_domain_max = n;
}

static void parse_word(uint32_t feature, struct slice word, struct ehlo *out)
{
    if (feature == EHLO_SIZE) {
        if (slice_u64(word, &out->size) < 0)
            out->size = 0;
    } else if (feature == EHLO_AUTH) {
        out->auth |= find(mechanisms, sizeof mechanisms / sizeof mechanisms[0], word);
    } else if (feature == EHLO_LIMITS) {
        parse_limit(word, out);
    }
}

static void parse_line(struct slice line, struct ehlo *out)
{
    struct slice rest = line, keyword = slice_cut(&rest, ' ');
    size_t equals = slice_chr(keyword, '=');
    /* "AUTH=LOGIN PLAIN" is what old Microsoft servers say */
    if (equals < keyword.len && slice_caseeq(slice_first(keyword, equals), SLICE("AUTH"))) {
        rest = slice_from(line, equals + 1);
        keyword = slice_first(keyword, equals);
    }
    uint32_t feature = find(keywords, sizeof keywords / sizeof keywords[0], keyword);
    out->features |= feature;
    while (feature && rest.len) {
        struct slice word = slice_cut(&rest, ' ');
        if (word.len)
            parse_word(feature, word, out);
    }
}

void ehlo_parse(const struct smtp_reply *r, struct ehlo *out)
{
    struct slice rest = buf_slice(&r->text), line;
    *out = (struct ehlo){0};
    reply_line(&rest, &line); /* the server's name */
    while (reply_line(&rest, &line))
        parse_line(slice_trim(line), out);
}
