/* Certificates of smtpd: whether they can be used, and for how long. */
#include <string.h>
#include <time.h>

#include "certs/certs.h"
#include "ctl/check.h"

enum { DAY = 86400, SOON_DAYS = 14 };

static void check_dates(struct check *c, const struct certs_identity *id, const char *where)
{
    time_t now = time(NULL);
    char until[32] = "";
    struct tm tm;
    strftime(until, sizeof until, "%Y-%m-%d %H:%M UTC", gmtime_r(&id->not_after, &tm));
    const char *of = *id->name ? id->name : "all names";
    if (id->not_after <= now)
        check_say(
            c, CHECK_WARNING,
            "%s: the certificate %s (%s) has expired, on %s, and clients that look refuse it; "
            "renew it: smtpd takes it from the file without a reload",
            where, id->path, of, until);
    else if (id->not_before > now)
        check_say(c, CHECK_WARNING,
                  "%s: the certificate %s (%s) is not valid yet; see whether the clock is right",
                  where, id->path, of);
    else if (id->not_after - now < SOON_DAYS * DAY)
        check_say(c, CHECK_WARNING, "%s: the certificate %s (%s) expires on %s; renew it", where,
                  id->path, of, until);
    else
        check_say(c, CHECK_OK, "%s: the certificate %s (%s) and its key are good until %s", where,
                  id->path, of, until);
}

static void check_service(struct check *c, const struct master_cf_service *s)
{
    struct err e;
    struct certs certs;
    struct config *own = config_override(c->config, (const char *const *)s->overrides,
                                         s->override_count, s->where, &e);
    if (!own || !certs_wanted(own)) {
        config_free(own);
        return;
    }
    if (certs_load(&certs, own, &e) == 0) {
        for (size_t i = 0; i < certs.count; i++)
            check_dates(c, &certs.identities[i], s->where);
        certs_free(&certs);
    } else if (c->errors == 0) { /* master said it already */
        check_say(c, CHECK_ERROR, "%s: %s", s->where, e.text);
    }
    config_free(own);
}

void check_certificates(struct check *c)
{
    for (size_t i = 0; i < c->master_cf->count; i++) {
        const struct master_cf_service *s = &c->master_cf->services[i];
        if (strcmp(s->command->name, "smtpd") == 0 && !s->local)
            check_service(c, s);
    }
}
