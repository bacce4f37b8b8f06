#include "tables/table.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/mem.h"
#include "tables/table_private.h"

static const struct table_kind *const kinds[] = {&table_texthash, &table_cdb, &table_pcre,
                                                 &table_cidr, &table_inline};

static struct slice domain_key(const void *value)
{
    return slice_str(value);
}

static const struct table_kind *find_kind(struct slice name)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (slice_eq(slice_str(kinds[i]->name), name))
            return kinds[i];
    return NULL;
}

struct table *table_open_fd(struct slice spec, int fd, struct err *e)
{
    struct slice path = spec, name = slice_cut(&path, ':');
    const struct table_kind *kind = find_kind(name);
    if (!kind || path.len == 0 || memchr(spec.ptr, '\0', spec.len)) {
        struct buf shown = BUF_INIT(1024);
        buf_add_escaped(&shown, spec, 200);
        err_set(e,
                "table \"%.*s\": expected texthash:FILE, cdb:FILE, pcre:FILE, cidr:FILE or "
                "inline:{ key=value }",
                SLICE_ARG(buf_slice(&shown)));
        buf_free(&shown);
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    struct table *t = xcalloc(1, sizeof *t);
    t->kind = kind;
    t->spec = slice_dup(spec);
    t->path = slice_str(t->spec + name.len + 1);
    map_init(&t->address_domains, domain_key);
    if (!kind->needs_file && fd >= 0) {
        close(fd);
        fd = -1;
    }
    int rc = kind->needs_file && fd < 0 ? err_set(e, "table %s: no file was passed", t->spec)
                                        : kind->open(t, fd, e);
    if (rc < 0) {
        table_close(t);
        return NULL;
    }
    return t;
}

void table_close(struct table *t)
{
    if (!t)
        return;
    t->kind->close(t);
    map_clear(&t->address_domains, free);
    map_free(&t->address_domains);
    free(t->spec);
    free(t);
}

enum table_result table_lookup(struct table *t, struct slice key, struct buf *value, struct err *e)
{
    char folded[TABLE_KEY_MAX];
    buf_clear(value);
    if (key.len == 0 || key.len > sizeof folded)
        return TABLE_NOT_FOUND;
    if (t->kind->pattern)
        return t->kind->lookup(t, key, value, e);
    memcpy(folded, key.ptr, key.len);
    table_fold(folded, key.len);
    return t->kind->lookup(t, slice_make(folded, key.len), value, e);
}

bool table_is_pattern(const struct table *t)
{
    return t->kind->pattern;
}

bool table_has_address_in(const struct table *t, struct slice domain)
{
    return t->kind->pattern || map_get(&t->address_domains, domain) != NULL;
}

const char *table_spec(const struct table *t)
{
    return t->spec;
}

bool table_list_next(struct slice *list, struct slice *spec)
{
    static const char separators[] = ", \t\r\n";
    while (list->len && memchr(separators, list->ptr[0], sizeof separators - 1))
        *list = slice_from(*list, 1);
    size_t n = 0;
    unsigned depth = 0;
    for (; n < list->len; n++) {
        char c = list->ptr[n];
        if (c == '{')
            depth++;
        else if (c == '}' && depth)
            depth--;
        else if (!depth && memchr(separators, c, sizeof separators - 1))
            break;
    }
    *spec = slice_first(*list, n);
    *list = slice_from(*list, n);
    return n > 0;
}

/* ---- for the kinds --------------------------------------------------------- */

void table_note_key(struct table *t, struct slice key)
{
    size_t at = slice_rchr(key, '@');
    struct slice domain = slice_from(key, at + 1);
    if (at == key.len || domain.len == 0 || map_get(&t->address_domains, domain))
        return;
    map_put(&t->address_domains, slice_dup(domain));
}

void table_fold(char *s, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (s[i] >= 'A' && s[i] <= 'Z')
            s[i] = (char)(s[i] | 0x20);
}

int table_read_file(struct table *t, int fd, struct buf *out, struct err *e)
{
    struct stat st;
    size_t expected =
        fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0 && st.st_size <= TABLE_FILE_MAX
            ? (size_t)st.st_size
            : 0;
    int rc = 0;
    buf_init(out, TABLE_FILE_MAX);
    off_t at = 0; /* the offset is shared with whoever passed the descriptor */
    while (rc == 0) {
        if (buf_reserve(out, expected > out->len ? expected - out->len + 1 : 4096) < 0 &&
            buf_reserve(out, 1) < 0) {
            rc = err_set(e, "%s: larger than %d MB", t->path.ptr, TABLE_FILE_MAX / 1048576);
            break;
        }
        ssize_t n = pread(fd, out->data + out->len, out->cap - out->len, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            rc = err_sys(e, "%s: read", t->path.ptr);
        if (n <= 0)
            break;
        out->len += (size_t)n;
        at += n;
    }
    if (rc == 0 && out->len && memchr(out->data, '\0', out->len))
        rc = err_set(e, "%s: holds a NUL byte, so it is not a text file", t->path.ptr);
    close(fd);
    return rc;
}

void table_lines_init(struct table_lines *l, struct table *t, struct slice content)
{
    *l = (struct table_lines){.rest = content, .next = 1, .table = t};
    buf_init(&l->text, TABLE_LINE_MAX);
}

void table_lines_free(struct table_lines *l)
{
    buf_free(&l->text);
}

int table_lines_next(struct table_lines *l, struct err *e)
{
    buf_clear(&l->text);
    while (l->rest.len) {
        struct slice after = l->rest, line = slice_cut(&after, '\n');
        struct slice trimmed = slice_trim(line);
        if (trimmed.len && trimmed.ptr[0] != '#') {
            bool continues = line.ptr[0] == ' ' || line.ptr[0] == '\t';
            if (!continues && l->text.len)
                break; /* the next logical line; it is read again */
            if (!l->text.len) {
                l->line = l->next;
                if (continues)
                    return err_set(e, "%s:%u: starts with white space but continues nothing",
                                   l->table->path.ptr, l->line);
            } else if (buf_addc(&l->text, ' ') < 0)
                return err_set(e, "%s:%u: line too long", l->table->path.ptr, l->line);
            if (buf_adds(&l->text, trimmed) < 0)
                return err_set(e, "%s:%u: line too long", l->table->path.ptr, l->line);
        }
        l->rest = after;
        l->next++;
    }
    return l->text.len > 0;
}

bool table_keyword(struct slice line, struct slice word)
{
    return slice_casestarts(line, word) &&
           (line.len == word.len ||
            !((line.ptr[word.len] | 0x20) >= 'a' && (line.ptr[word.len] | 0x20) <= 'z'));
}
