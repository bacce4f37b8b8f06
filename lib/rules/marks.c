/* One way to recognise two providers. */
#include <stdlib.h>

#include "core/mem.h"
#include "rules/set.h"

enum mark_kind { MARK_MX, MARK_HOST, MARK_DOMAIN, MARK_KINDS };

/* mx, hosts or domains: what a provider is recognised by. */
struct mark {
    const char *name; /* without the dot that mx may begin with */
    const char *text;
    enum mark_kind kind;
    const struct section *of;
};

static const char *const kinds[] = {"mx", "hosts", "domains"};

static int compare_marks(const void *a, const void *b)
{
    const struct mark *x = a, *y = b;
    int by_name = strcmp(x->name, y->name);
    if (by_name)
        return by_name;
    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    int by_text = strcmp(x->text, y->text);
    if (by_text)
        return by_text;
    return x->of < y->of ? -1 : x->of > y->of;
}

/* All of the providers' marks, sorted; the caller frees them. */
static struct mark *all_marks(const struct rules *r, size_t *count)
{
    struct mark *marks = NULL;
    size_t n = 0;
    for (size_t i = 0; i < r->providers.count; i++) {
        const struct section *s = &r->providers.list[i];
        char *const *lists[] = {s->mx, s->hosts, s->domains};
        for (size_t kind = 0; kind < MARK_KINDS; kind++)
            for (size_t k = 0; lists[kind] && lists[kind][k]; k++) {
                const char *text = lists[kind][k];
                if ((n & (n - 1)) == 0)
                    marks = xreallocarray(marks, n ? 2 * n : 1, sizeof *marks);
                marks[n++] = (struct mark){text + (text[0] == '.'), text, (enum mark_kind)kind, s};
            }
    }
    if (n)
        qsort(marks, n, sizeof *marks, compare_marks);
    *count = n;
    return marks;
}

int rules_check_marks(const struct rules *r, struct err *e)
{
    size_t count;
    int rc = 0;
    struct mark *marks = all_marks(r, &count);
    for (size_t i = 1; i < count && rc == 0; i++) {
        const struct mark *a = &marks[i - 1], *b = &marks[i];
        if (a->of != b->of && a->kind == b->kind && strcmp(a->text, b->text) == 0)
            rc = err_set(e,
                         "%s:%d: provider %s: %s \"%s\" is how provider %s is recognised "
                         "(%s:%d); take it out of one of them",
                         b->of->file, b->of->line, b->of->name, kinds[a->kind], b->text,
                         a->of->name, a->of->file, a->of->line);
    }
    free(marks);
    return rc;
}

/* Of two that a destination may have at once, the first that holds. */
static void tell(const struct mark *holds, const struct mark *gives_way, const char *why,
                 void (*say)(const char *text, bool error, void *arg), void *arg)
{
    struct buf b = BUF_INIT(4096);
    (void)buf_printf(&b,
                     "%s:%d: provider %s: %s \"%s\" is what provider %s (%s:%d) is recognised by, "
                     "too (%s \"%s\"); %s holds, %s",
                     gives_way->of->file, gives_way->of->line, gives_way->of->name,
                     kinds[gives_way->kind], gives_way->text, holds->of->name, holds->of->file,
                     holds->of->line, kinds[holds->kind], holds->text, holds->of->name, why);
    (void)buf_addc(&b, '\0');
    say(b.data, false, arg);
    buf_free(&b);
}

void rules_warn_marks(const struct rules *r, void (*say)(const char *text, bool error, void *arg),
                      void *arg)
{
    size_t count;
    struct mark *marks = all_marks(r, &count);
    for (size_t i = 1; i < count; i++) {
        const struct mark *a = &marks[i - 1], *b = &marks[i];
        if (a->of == b->of || strcmp(a->name, b->name) != 0)
            continue;
        if (b->kind == MARK_MX)
            tell(a->of < b->of ? a : b, a->of < b->of ? b : a, "which stands first", say, arg);
        else if (b->kind != a->kind && strcmp(a->text, b->text) == 0)
            tell(b, a,
                 b->kind == MARK_HOST ? "which names the host"
                                      : "where the recipient's domain is called so",
                 say, arg);
    }
    free(marks);
}
