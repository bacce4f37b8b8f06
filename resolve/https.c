#include "resolve/https.h"

#include <curl/curl.h>
#include <stdio.h>

#include "core/mem.h"

struct https {
    struct event_base *base;
    struct event *timer;
    CURLM *multi;
    struct buf authorities;
};

struct https_fetch {
    struct https *all;
    CURL *easy;
    struct curl_slist *addresses, *headers;
    CURLSH *names; /* a cache of its own: what CURLOPT_RESOLVE puts into one stays there */
    struct buf body;
    bool too_long, posted;
    char error[CURL_ERROR_SIZE];
    https_done *done;
    void *arg;
};

enum { AUTHORITIES_MAX = 8 * 1024 * 1024 };

int https_prepare(struct err *e)
{
    return curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? 0
                                                             : err_set(e, "libcurl cannot start");
}

/* ---- the end of a fetch ---------------------------------------------------------- */

static void fetch_free(struct https_fetch *f)
{
    curl_multi_remove_handle(f->all->multi, f->easy);
    curl_easy_cleanup(f->easy);
    curl_slist_free_all(f->addresses);
    curl_slist_free_all(f->headers);
    curl_share_cleanup(f->names);
    buf_free(&f->body);
    free(f);
}

void https_cancel(struct https_fetch *f)
{
    if (f)
        fetch_free(f);
}

static bool is_untrusted(CURLcode code)
{
    return code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_ISSUER_ERROR;
}

/* RFC 8461 section 3.3: the document counts if it comes with 200, and as text, so
 * that what users of a web server upload is not taken for a policy. What was posted has
 * arrived with any 2xx. */
static enum https_end judge(struct https_fetch *f, CURLcode code, char *why, size_t size)
{
    long status = 0;
    const char *type = NULL;
    curl_easy_getinfo(f->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(f->easy, CURLINFO_CONTENT_TYPE, &type);
    why[0] = '\0';
    if (f->posted && status / 100 == 2)
        return HTTPS_FINE;
    if (f->too_long) {
        snprintf(why, size, "it is longer than %zu bytes", f->body.max);
        return HTTPS_UNFIT;
    }
    if (code != CURLE_OK) {
        snprintf(why, size, "%s", *f->error ? f->error : curl_easy_strerror(code));
        return is_untrusted(code) ? HTTPS_UNTRUSTED : HTTPS_FAILED;
    }
    if (f->posted || status != 200) {
        snprintf(why, size, "the server answers with status %ld", status);
        return HTTPS_FAILED;
    }
    if (type && slice_casestarts(slice_str(type), SLICE("text/plain")))
        return HTTPS_FINE;
    snprintf(why, size, "it is not text/plain");
    return HTTPS_UNFIT;
}

static void take_finished(struct https *h)
{
    CURLMsg *m;
    int left;
    while ((m = curl_multi_info_read(h->multi, &left)) != NULL) {
        struct https_fetch *f;
        if (m->msg != CURLMSG_DONE)
            continue;
        CURLcode code = m->data.result; /* m goes with the handle */
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &f);
        char why[CURL_ERROR_SIZE + 40];
        enum https_end end = judge(f, code, why, sizeof why);
        f->done(buf_slice(&f->body), why, end, f->arg);
        fetch_free(f);
    }
}

/* ---- libcurl's sockets and timer ---------------------------------------------------- */

static void on_socket(evutil_socket_t fd, short what, void *arg)
{
    struct https *h = arg;
    int running,
        bits = (what & EV_READ ? CURL_CSELECT_IN : 0) | (what & EV_WRITE ? CURL_CSELECT_OUT : 0);
    curl_multi_socket_action(h->multi, fd, bits, &running);
    take_finished(h);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct https *h = arg;
    int running;
    (void)fd;
    (void)what;
    curl_multi_socket_action(h->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    take_finished(h);
}

static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *of_socket)
{
    struct https *h = arg;
    struct event *ev = of_socket;
    (void)easy;
    if (ev)
        event_free(ev);
    ev = NULL;
    if (what != CURL_POLL_REMOVE) {
        short bits =
            (short)((what & CURL_POLL_IN ? EV_READ : 0) | (what & CURL_POLL_OUT ? EV_WRITE : 0));
        ev = event_new(h->base, fd, (short)(bits | EV_PERSIST), on_socket, h);
        if (ev)
            event_add(ev, NULL);
    }
    curl_multi_assign(h->multi, fd, ev);
    return 0;
}

static int set_timer(CURLM *multi, long milliseconds, void *arg)
{
    struct https *h = arg;
    struct timeval wait = {milliseconds / 1000, milliseconds % 1000 * 1000};
    (void)multi;
    if (milliseconds < 0)
        event_del(h->timer);
    else
        event_add(h->timer, &wait);
    return 0;
}

struct https *https_new(struct event_base *base, struct err *e)
{
    struct https *h = xcalloc(1, sizeof *h);
    h->base = base;
    buf_init(&h->authorities, AUTHORITIES_MAX);
    h->multi = curl_multi_init();
    h->timer = evtimer_new(base, on_timer, h);
    if (!h->multi || !h->timer) {
        err_set(e, "libcurl cannot start");
        return NULL; /* the service ends */
    }
    curl_multi_setopt(h->multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
    curl_multi_setopt(h->multi, CURLMOPT_SOCKETDATA, h);
    curl_multi_setopt(h->multi, CURLMOPT_TIMERFUNCTION, set_timer);
    curl_multi_setopt(h->multi, CURLMOPT_TIMERDATA, h);
    curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, 0L);
    return h;
}

void https_authorities(struct https *h, struct slice pem)
{
    buf_clear(&h->authorities);
    (void)buf_adds(&h->authorities, pem);
}

/* ---- a fetch --------------------------------------------------------------------- */

static size_t take_body(char *data, size_t size, size_t count, void *arg)
{
    struct https_fetch *f = arg;
    if (buf_add(&f->body, data, size * count) == 0)
        return size * count;
    f->too_long = true;
    return 0; /* ends it */
}

/* Every option that a server could use to lead us elsewhere, or that would make
 * libcurl read files, ask DNS, or use a proxy. */
static void set_options(struct https_fetch *f, const struct https_request *r)
{
    CURL *c = f->easy;
    struct curl_blob authorities = {f->all->authorities.data, f->all->authorities.len,
                                    CURL_BLOB_COPY};
    curl_easy_setopt(c, CURLOPT_PRIVATE, f);
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "https");
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
    curl_share_setopt(f->names, CURLSHOPT_SHARE, CURL_LOCK_DATA_DNS);
    curl_easy_setopt(c, CURLOPT_SHARE, f->names);
    curl_easy_setopt(c, CURLOPT_RESOLVE, f->addresses);
    curl_easy_setopt(c, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(c, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(c, CURLOPT_SSL_VERIFYHOST, 2L);
    curl_easy_setopt(c, CURLOPT_CAINFO, NULL);
    curl_easy_setopt(c, CURLOPT_CAPATH, NULL);
    curl_easy_setopt(c, CURLOPT_CAINFO_BLOB, &authorities);
    curl_easy_setopt(c, CURLOPT_TIMEOUT, r->seconds);
    curl_easy_setopt(c, CURLOPT_BUFFERSIZE, 16384L);
    curl_easy_setopt(c, CURLOPT_FRESH_CONNECT, 1L);
    curl_easy_setopt(c, CURLOPT_FORBID_REUSE, 1L);
    curl_easy_setopt(c, CURLOPT_USERAGENT, "Postern/" POSTERN_VERSION);
    curl_easy_setopt(c, CURLOPT_ERRORBUFFER, f->error);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, f);
}

static void set_content(struct https_fetch *f, const struct https_request *r)
{
    char *type = xasprintf("Content-Type: %s", r->content_type);
    f->posted = true;
    f->headers = curl_slist_append(NULL, type);
    free(type);
    if (!f->headers)
        panic("out of memory");
    curl_easy_setopt(f->easy, CURLOPT_HTTPHEADER, f->headers);
    curl_easy_setopt(f->easy, CURLOPT_POSTFIELDSIZE, (long)r->content.len);
    curl_easy_setopt(f->easy, CURLOPT_COPYPOSTFIELDS, r->content.ptr);
}

struct https_fetch *https_get(struct https *h, const struct https_request *r, https_done *done,
                              void *arg)
{
    if (h->authorities.len == 0)
        return NULL;
    struct https_fetch *f = xcalloc(1, sizeof *f);
    char *url = xasprintf("https://%s:%u%s", r->host, r->port, r->path);
    char *addresses = xasprintf("%s:%u:%s", r->host, r->port, r->addresses);
    f->all = h;
    f->done = done;
    f->arg = arg;
    buf_init(&f->body, r->limit);
    f->easy = curl_easy_init();
    f->addresses = curl_slist_append(NULL, addresses);
    f->names = curl_share_init();
    if (!f->easy || !f->addresses || !f->names)
        panic("out of memory");
    set_options(f, r);
    if (r->content.len)
        set_content(f, r);
    curl_easy_setopt(f->easy, CURLOPT_URL, url);
    free(url);
    free(addresses);
    if (curl_multi_add_handle(h->multi, f->easy) == CURLM_OK)
        return f;
    fetch_free(f);
    return NULL;
}
