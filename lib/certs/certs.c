#include "certs/certs.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <strings.h>
#include <unistd.h>

#include "certs/pem.h"
#include "conf/cf_lines.h"
#include "core/log.h"
#include "core/mem.h"

enum { SNI_NAME_MAX = 255 };

bool certs_wanted(const struct config *config)
{
    return config->smtpd_tls_wrappermode || strcmp(config->smtpd_tls_security_level, "none") != 0;
}

/* ---- files ------------------------------------------------------------------------ */

static void remember(struct certs *c, const char *path, const struct stat *st)
{
    c->files = xreallocarray(c->files, c->file_count + 1, sizeof *c->files);
    c->files[c->file_count++] = (struct certs_file){xstrdup(path), *st};
}

static int read_file(struct certs *c, const char *path, struct buf *out, struct stat *st,
                     struct err *e)
{
    buf_init(out, CERTS_FILE_MAX);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return err_sys(e, "%s", path);
    int rc = cf_check_owner(fd, path, e);
    if (rc == 0 && fstat(fd, st) < 0)
        rc = err_sys(e, "%s", path);
    if (rc == 0 && (st->st_size > CERTS_FILE_MAX || buf_reserve(out, (size_t)st->st_size) < 0))
        rc = err_set(e, "%s: is larger than %d bytes", path, CERTS_FILE_MAX);
    for (ssize_t n; rc == 0 && out->len < (size_t)st->st_size;) {
        n = read(fd, out->data + out->len, (size_t)st->st_size - out->len);
        if (n < 0 && errno != EINTR)
            rc = err_sys(e, "%s: cannot read", path);
        else if (n == 0)
            break; /* it became shorter: what is missing will be noticed */
        else if (n > 0)
            out->len += (size_t)n;
    }
    close(fd);
    if (rc == 0)
        remember(c, path, st);
    return rc;
}

static void wipe(struct buf *b)
{
    if (b->data)
        OPENSSL_cleanse(b->data, b->cap);
    buf_free(b);
}

/* A private key that others can read has to be taken for known (B85). */
static int check_secret(const char *path, const struct stat *st, struct err *e)
{
    if (st->st_uid != 0 && st->st_uid != geteuid())
        return err_set(e, "%s: holds a private key and belongs to another user; run: chown root %s",
                       path, path);
    if (!(st->st_mode & (S_IRWXG | S_IRWXO)))
        return 0;
    return err_set(e, "%s: holds a private key that %s can read; run: chmod 600 %s", path,
                   st->st_mode & S_IRWXO ? "everybody" : "its group", path);
}

/* Reads a PEM file; parts are the caller's. */
static int read_pem(struct certs *c, const char *path, struct pem_parts *out, struct err *e)
{
    struct buf text;
    struct stat st;
    int rc = read_file(c, path, &text, &st, e);
    if (rc == 0 && pem_split(buf_slice(&text), out, e) < 0)
        rc = err_prefix(e, "%s", path);
    else if (rc == 0 && out->key && check_secret(path, &st, e) < 0) {
        pem_free(out);
        rc = -1;
    }
    wipe(&text);
    return rc;
}

/* ---- identities ------------------------------------------------------------------- */

/* Takes *pem over, unless the key has its PEM already. */
static size_t add_key(struct certs *c, const unsigned char *id, char **pem)
{
    size_t i = 0;
    while (i < c->key_count && memcmp(c->keys[i].id, id, CERTS_KEY_ID) != 0)
        i++;
    if (i == c->key_count) {
        c->keys = xreallocarray(c->keys, ++c->key_count, sizeof *c->keys);
        c->keys[i].pem = NULL;
        memcpy(c->keys[i].id, id, CERTS_KEY_ID);
    }
    if (!c->keys[i].pem) {
        c->keys[i].pem = *pem;
        *pem = NULL;
    }
    return i;
}

static int add_identity(struct certs *c, struct slice name, const char *path, struct pem_parts *p,
                        struct err *e)
{
    if (!p->chain)
        return err_set(e, "%s: there is no certificate in it (-----BEGIN CERTIFICATE-----)", path);
    if (!p->key)
        return err_set(e, "%s: there is no private key for it (-----BEGIN PRIVATE KEY-----)", path);
    if (memcmp(p->key_id, p->certificate_id, CERTS_KEY_ID) != 0)
        return err_set(e,
                       "%s: the private key is not that of the first certificate; the host's own "
                       "certificate has to come before those of the authorities",
                       path);
    c->total += strlen(p->chain);
    if (c->total > CERTS_TOTAL_MAX)
        return err_set(e, "%s: all certificates together have more than %d bytes", path,
                       CERTS_TOTAL_MAX);
    c->identities = xreallocarray(c->identities, c->count + 1, sizeof *c->identities);
    struct certs_identity *i = &c->identities[c->count++];
    *i = (struct certs_identity){.name = slice_dup(name),
                                 .path = xstrdup(path),
                                 .table = c->table ? xstrdup(c->table) : NULL,
                                 .chain = p->chain,
                                 .not_before = p->not_before,
                                 .not_after = p->not_after};
    p->chain = NULL;
    i->key = add_key(c, p->key_id, &p->key);
    return 0;
}

/* ---- what is kept when a file cannot be read any more --------------------------------- */

/* The file is looked at again when it changes, or comes back. */
static void watch(struct certs *c, const char *path)
{
    struct stat st;
    const struct certs_file *was = NULL;
    for (size_t i = 0; i < c->file_count; i++)
        if (strcmp(c->files[i].path, path) == 0)
            return;
    for (size_t i = 0; i < c->old->file_count; i++)
        if (strcmp(c->old->files[i].path, path) == 0)
            was = &c->old->files[i];
    if (stat(path, &st) < 0)
        st = was ? was->seen : (struct stat){.st_size = -1};
    remember(c, path, &st);
}

static void add_problem(struct certs *c, const struct err *e, const char *what)
{
    c->problems = xreallocarray(c->problems, c->problem_count + 1, sizeof *c->problems);
    c->problems[c->problem_count++] = xasprintf("%s; %s", e->text, what);
}

/* Takes over what c->old has for this name from this file. 0; or -1: *e
 * stays, nothing can be kept. */
static int keep(struct certs *c, struct slice name, const char *path, const struct err *e)
{
    for (size_t i = 0; c->old && i < c->old->count; i++) {
        const struct certs_identity *was = &c->old->identities[i];
        const struct certs_key *key = &c->old->keys[was->key];
        if (strcmp(was->path, path) != 0 || !slice_caseeq(slice_str(was->name), name))
            continue;
        char *pem = key->pem ? xstrdup(key->pem) : NULL;
        c->total += strlen(was->chain);
        c->identities = xreallocarray(c->identities, c->count + 1, sizeof *c->identities);
        c->identities[c->count++] =
            (struct certs_identity){.name = xstrdup(was->name),
                                    .path = xstrdup(path),
                                    .table = c->table ? xstrdup(c->table) : NULL,
                                    .chain = xstrdup(was->chain),
                                    .key = add_key(c, key->id, &pem),
                                    .not_before = was->not_before,
                                    .not_after = was->not_after};
        if (pem)
            OPENSSL_cleanse(pem, strlen(pem));
        free(pem);
        watch(c, path);
        add_problem(c, e, "the old one stays in use");
        return 0;
    }
    if (!c->old || name.len == 0)
        return -1;
    watch(c, path);
    add_problem(c, e, "this name has no certificate of its own");
    return 0;
}

static int add_chain_file(struct certs *c, struct slice name, const char *path, struct err *e)
{
    struct pem_parts p;
    if (path[0] != '/')
        return err_set(e, "%s: the path must begin with /", path);
    if (read_pem(c, path, &p, e) < 0)
        return keep(c, name, path, e);
    int rc = add_identity(c, name, path, &p, e);
    pem_free(&p);
    return rc == 0 ? 0 : keep(c, name, path, e);
}

static int add_chain_files(struct certs *c, struct slice name, struct slice list, struct err *e)
{
    struct slice element;
    int rc = 0;
    while (rc == 0 && config_list_next(&list, &element)) {
        char *path = slice_dup(element);
        rc = add_chain_file(c, name, path, e);
        free(path);
    }
    return rc;
}

static int keep_pair(struct certs *c, const char *certificate, const char *key, const struct err *e)
{
    if (keep(c, SLICE(""), certificate, e) < 0)
        return -1;
    watch(c, key);
    return 0;
}

/* smtpd_tls_cert_file and smtpd_tls_key_file, which may be one file. */
static int add_pair(struct certs *c, const char *certificate, const char *key, struct err *e)
{
    struct pem_parts p, secret = {.key = NULL};
    if (!*certificate)
        return 0;
    if (read_pem(c, certificate, &p, e) < 0)
        return keep_pair(c, certificate, key, e);
    int rc = 0;
    if (strcmp(certificate, key) != 0) {
        rc = read_pem(c, key, &secret, e);
        if (rc == 0 && !secret.key)
            rc = err_set(e, "%s: there is no private key in it (-----BEGIN PRIVATE KEY-----)", key);
        if (rc == 0) {
            char *old = p.key;
            p.key = secret.key;
            secret.key = old;
            memcpy(p.key_id, secret.key_id, CERTS_KEY_ID);
        }
    }
    if (rc == 0)
        rc = add_identity(c, SLICE(""), certificate, &p, e);
    pem_free(&p);
    pem_free(&secret);
    return rc == 0 ? 0 : keep_pair(c, certificate, key, e);
}

/* ---- tls_server_sni_maps ------------------------------------------------------------ */

static bool is_sni_name(struct slice name)
{
    if (name.len && name.ptr[0] == '.')
        name = slice_from(name, 1);
    bool good = name.len > 0 && name.len < SNI_NAME_MAX;
    for (size_t i = 0; good && i < name.len; i++) {
        char ch = name.ptr[i], low = (char)(ch | 0x20);
        good = (low >= 'a' && low <= 'z') || (ch >= '0' && ch <= '9') || ch == '-' || ch == '_' ||
               (ch == '.' && i > 0 && name.ptr[i - 1] != '.' && i + 1 < name.len);
    }
    return good;
}

static bool has_identity(const struct certs *c, const struct certs_identity *other)
{
    for (size_t i = 0; i < c->count; i++)
        if (c->identities[i].table && strcmp(c->identities[i].table, other->table) == 0 &&
            strcasecmp(c->identities[i].name, other->name) == 0 &&
            strcmp(c->identities[i].path, other->path) == 0)
            return true;
    return false;
}

/* What old has for this name (empty: for any) by this table, and is not here yet. The files are
 * read again: they may be renewed though the table is wrong. */
static int keep_names(struct certs *c, struct slice name)
{
    struct err e;
    for (size_t i = 0; i < c->old->count; i++) {
        const struct certs_identity *was = &c->old->identities[i];
        if (!was->table || strcmp(was->table, c->table) != 0 || has_identity(c, was) ||
            (name.len && !slice_caseeq(slice_str(was->name), name)))
            continue;
        if (add_chain_file(c, slice_str(was->name), was->path, &e) < 0)
            return -1;
    }
    return 0;
}

/* A line that is wrong does not stand in the way of the others once there was a right one. */
static int keep_line(struct certs *c, struct slice name, const struct err *e)
{
    if (!c->old || (is_sni_name(name) && keep_names(c, name) < 0))
        return -1;
    add_problem(c, e, "this line is left out");
    return 0;
}

/* The same for a table of which no more can be read. */
static int keep_table(struct certs *c, const struct err *e)
{
    if (!c->old || keep_names(c, SLICE("")) < 0)
        return -1;
    watch(c, c->table);
    add_problem(c, e, "the names that were in it stay");
    return 0;
}

static int add_sni_line(struct certs *c, struct slice line, unsigned number, struct err *e)
{
    size_t end = 0;
    while (end < line.len && line.ptr[end] != ' ' && line.ptr[end] != '\t')
        end++;
    struct slice name = slice_first(line, end), files = slice_trim(slice_from(line, end));
    int rc = 0;
    if (!is_sni_name(name) || files.len == 0)
        rc = err_set(e,
                     "%s:%u: write a host name and a file with its private key and "
                     "certificates",
                     c->table, number);
    else if (add_chain_files(c, name, files, e) < 0)
        rc = err_prefix(e, "%s:%u", c->table, number);
    return rc == 0 ? 0 : keep_line(c, name, e);
}

static int add_sni_lines(struct certs *c, struct slice text, struct err *e)
{
    struct cf_reader r;
    struct slice line;
    int rc;
    cf_open(&r, c->table, text);
    while ((rc = cf_next(&r, &line, e)) == 1) {
        rc = add_sni_line(c, line, r.start, e);
        if (rc < 0)
            break;
    }
    cf_close(&r);
    return rc;
}

static int add_sni_table(struct certs *c, const char *path, struct err *e)
{
    struct stat st;
    struct buf text;
    c->table = path;
    int rc = read_file(c, path, &text, &st, e);
    if (rc == 0)
        rc = add_sni_lines(c, buf_slice(&text), e);
    if (rc < 0)
        rc = keep_table(c, e);
    c->table = NULL;
    buf_free(&text);
    return rc;
}

static int add_sni_maps(struct certs *c, const char *list, struct err *e)
{
    struct slice rest = slice_str(list), spec;
    int rc = 0;
    while (rc == 0 && config_list_next(&rest, &spec)) {
        struct slice name = spec, type = slice_cut(&name, ':');
        if (!slice_eq(type, SLICE("texthash")) || name.len == 0 || name.ptr[0] != '/')
            return err_set(e, "tls_server_sni_maps: %s: write texthash:/path",
                           log_esc_n(spec, 120));
        char *path = slice_dup(name);
        rc = add_sni_table(c, path, e);
        free(path);
    }
    return rc;
}

/* ---- all of it ------------------------------------------------------------------------ */

static int add_authorities(struct certs *c, const char *path, struct err *e)
{
    struct buf text;
    struct stat st;
    if (!*path)
        return 0;
    int rc = read_file(c, path, &text, &st, e);
    if (rc == 0 && pem_check_authorities(buf_slice(&text), e) < 0)
        rc = err_prefix(e, "%s", path);
    if (rc == 0) {
        c->authorities = slice_dup(buf_slice(&text));
    } else if (c->old && c->old->authorities) {
        c->authorities = xstrdup(c->old->authorities);
        watch(c, path);
        add_problem(c, e, "the authorities that were in it stay");
        rc = 0;
    }
    buf_free(&text);
    return rc;
}

static int load(struct certs *c, const struct config *config, struct err *e)
{
    if (*config->smtpd_tls_chain_files) {
        if (add_chain_files(c, SLICE(""), slice_str(config->smtpd_tls_chain_files), e) < 0)
            return -1;
    } else if (add_pair(c, config->smtpd_tls_cert_file, config->smtpd_tls_key_file, e) < 0 ||
               add_pair(c, config->smtpd_tls_eccert_file, config->smtpd_tls_eckey_file, e) < 0) {
        return -1;
    }
    if (c->count == 0)
        return err_set(e, "smtpd_tls_chain_files (or smtpd_tls_cert_file): is empty, and without a "
                          "certificate there is no TLS; name one, or set "
                          "smtpd_tls_security_level = none and smtpd_tls_wrappermode = no");
    if (config->smtpd_tls_req_ccert && !*config->smtpd_tls_CAfile)
        return err_set(e,
                       "smtpd_tls_req_ccert: needs smtpd_tls_CAfile to verify certificates with");
    if (config->smtpd_tls_req_ccert && !config->smtpd_tls_wrappermode &&
        strcmp(config->smtpd_tls_security_level, "encrypt") != 0)
        return err_set(e, "smtpd_tls_req_ccert: needs smtpd_tls_security_level = encrypt, or "
                          "clients without TLS would get around it");
    if (add_authorities(c, config->smtpd_tls_CAfile, e) < 0)
        return -1;
    return add_sni_maps(c, config->tls_server_sni_maps, e);
}

int certs_load(struct certs *c, const struct config *config, struct err *e)
{
    *c = (struct certs){.count = 0};
    if (load(c, config, e) == 0)
        return 0;
    certs_free(c);
    return -1;
}

int certs_renew(struct certs *c, const struct config *config, const struct certs *old,
                struct err *e)
{
    *c = (struct certs){.old = old};
    int rc = load(c, config, e);
    c->old = NULL;
    if (rc < 0)
        certs_free(c);
    return rc;
}

void certs_forget_keys(struct certs *c)
{
    for (size_t i = 0; i < c->key_count; i++) {
        if (c->keys[i].pem)
            OPENSSL_cleanse(c->keys[i].pem, strlen(c->keys[i].pem));
        xfree(&c->keys[i].pem);
    }
}

void certs_free(struct certs *c)
{
    certs_forget_keys(c);
    for (size_t i = 0; i < c->count; i++) {
        free(c->identities[i].name);
        free(c->identities[i].path);
        free(c->identities[i].table);
        free(c->identities[i].chain);
    }
    for (size_t i = 0; i < c->file_count; i++)
        free(c->files[i].path);
    for (size_t i = 0; i < c->problem_count; i++)
        free(c->problems[i]);
    free(c->problems);
    free(c->identities);
    free(c->keys);
    free(c->files);
    free(c->authorities);
    *c = (struct certs){.count = 0};
}

bool certs_changed(const struct certs *c)
{
    for (size_t i = 0; i < c->file_count; i++) {
        const struct stat *seen = &c->files[i].seen;
        struct stat now;
        if (stat(c->files[i].path, &now) < 0)
            continue; /* it is being replaced, or gone: what was read still holds */
        if (now.st_dev != seen->st_dev || now.st_ino != seen->st_ino ||
            now.st_size != seen->st_size || now.st_mtim.tv_sec != seen->st_mtim.tv_sec ||
            now.st_mtim.tv_nsec != seen->st_mtim.tv_nsec ||
            now.st_ctim.tv_sec != seen->st_ctim.tv_sec ||
            now.st_ctim.tv_nsec != seen->st_ctim.tv_nsec)
            return true;
    }
    return false;
}
