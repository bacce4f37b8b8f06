/* libraries: qmgr_parts */
/* What the scan does with files that are not as we left them: B76-B83. Each
 * time a good neighbour must be found all the same. */
#include "store_harness.h"

static const struct slice body = SLICE("Subject: x\r\n\r\nhello\r\n");

/* A spool with two messages: `id`, whose file is to be damaged, and another. */
struct pair {
    struct spool *s;
    struct id id, neighbour;
    struct store_ref ref;
    char path[128];
};

static struct pair make_pair(void)
{
    struct pair p = {.s = new_spool()};
    open_spool(p.s, default_config());
    p.id = id_new();
    assert_int_equal(commit_one(p.s, &p.id, body, 2), 0);
    p.ref = p.s->ref;
    p.neighbour = id_new();
    assert_int_equal(commit_one(p.s, &p.neighbour, body, 1), 0);
    close_spool(p.s);
    message_path(p.path, &p.id);
    return p;
}

/* Only the neighbour is found; what became of the other? */
static void check_pair(struct pair *p, unsigned corrupt, unsigned left)
{
    rescan(p->s);
    assert_int_equal(p->s->seen_count, 1);
    assert_string_equal(p->s->seen[0].id.text, p->neighbour.text);
    assert_int_equal(p->s->quarantined, corrupt);
    settle(p->s);
    assert_int_equal(count_entries("corrupt"), corrupt);
    assert_int_equal(count_messages(), 1 + left);
    end_spool(p->s);
}

static void test_B76_empty_and_truncated(void **state)
{
    (void)state;
    for (long len = 0; len < 400; len += 57) {
        struct pair p = make_pair();
        struct stat st;
        assert_int_equal(stat(p.path, &st), 0);
        assert_int_equal(truncate(p.path, len < st.st_size ? len : st.st_size - 1), 0);
        check_pair(&p, 1, 0);
    }
}

static void test_B77_checksum(void **state)
{
    static const long places[] = {0, 9 + 8, 100, 184, 192, 210};
    (void)state;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        struct pair p = make_pair();
        char byte;
        int fd = open(p.path, O_RDWR);
        assert_int_equal(pread(fd, &byte, 1, places[i]), 1);
        byte = (char)(byte ^ 0x40);
        assert_int_equal(pwrite(fd, &byte, 1, places[i]), 1);
        close(fd);
        check_pair(&p, 1, 0);
    }
}

static void test_B77_content_shows_at_reading(void **state)
{
    struct pair p = make_pair();
    (void)state;
    overwrite(p.path, (long)p.ref.body_at + 3, "#", 1);
    rescan(p.s);
    assert_int_equal(p.s->seen_count, 2);
    read_back(p.s, &p.id, &p.ref, 1000);
    assert_string_not_equal(p.s->error, "");
    assert_int_equal(p.s->content.len, 0);
    assert_int_equal(p.s->damaged, 1);
    settle(p.s);
    assert_int_equal(count_entries("corrupt"), 1);
    end_spool(p.s);
}

/* Marks that were called before the damage is known write to the cached
 * descriptor: it must not be of another file by then. */
static void test_descriptor_of_a_damaged_message_is_its_owners(void **state)
{
    struct spool *s = new_spool();
    struct id id = id_new();
    struct store_stats before, after;
    struct stat opened, named;
    char path[128];
    (void)state;
    open_spool(s, default_config());
    store_stats(s->store, &before);
    assert_int_equal(commit_one(s, &id, body, 2), 0);
    struct store_ref ref = s->ref;
    assert_true(ref.fd >= 0);
    message_path(path, &id);
    overwrite(path, (long)ref.body_at + 3, "#", 1);
    assert_int_equal(stat(path, &named), 0);
    read_back(s, &id, &ref, 1000);
    assert_int_equal(s->damaged, 1);
    settle(s);
    assert_int_equal(count_entries("corrupt"), 1);
    assert_int_equal(fstat(ref.fd, &opened), 0);
    assert_int_equal(opened.st_ino, named.st_ino);
    store_unload(s->store, &id, &ref);
    settle(s);
    store_stats(s->store, &after);
    assert_int_equal(after.open_files, before.open_files);
    end_spool(s);
}

static void test_B78_B82_lengths_beyond_the_file(void **state)
{
    /* the offsets of the lengths of envelope, recipients, prefix and body */
    static const long places[] = {40, 48, 56, 64};
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct pair p = make_pair();
        overwrite(p.path, places[i], "\xff\xff\xff", 3);
        check_pair(&p, 1, 0);
    }
}

static void test_B79_later_version_is_left_alone(void **state)
{
    struct pair p = make_pair();
    (void)state;
    overwrite(p.path, 8, "\xff", 1);
    check_pair(&p, 0, 1);
}

static void test_B80_not_a_file_of_ours(void **state)
{
    (void)state;
    for (int kind = 0; kind < 5; kind++) {
        struct pair p = make_pair();
        if (kind == 4 && geteuid() != 0) {
            end_spool(p.s);
            continue;
        }
        if (kind < 3)
            assert_int_equal(rename(p.path, "elsewhere"), 0);
        if (kind == 0)
            assert_int_equal(symlink("../../elsewhere", p.path), 0);
        else if (kind == 1)
            assert_int_equal(mkfifo(p.path, 0600), 0);
        else if (kind == 2)
            assert_int_equal(mkdir(p.path, 0700), 0);
        else if (kind == 3)
            assert_int_equal(link(p.path, "second-name"), 0);
        else
            assert_int_equal(chown(p.path, 12345, 12345), 0);
        check_pair(&p, 0, 1);
    }
}

static void test_B81_names_outside_the_grammar(void **state)
{
    static const char *const names[] = {"x", "4bWxyZ1BCDz000!", "4bWxyZ1BCDy0001", "core",
                                        "4bWxyZ1BCDz0001F0longer"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct pair p = make_pair();
        char other[400], *slash;
        snprintf(other, sizeof other, "%s", p.path);
        slash = strrchr(other, '/');
        snprintf(slash, sizeof other - (size_t)(slash - other), "/%s", names[i]);
        assert_int_equal(rename(p.path, other), 0);
        check_pair(&p, 0, 1);
    }
    struct pair p = make_pair(); /* a directory that is no bucket */
    assert_int_equal(mkdir("new/lost+found", 0700), 0);
    assert_int_equal(rename(p.path, "new/lost+found/x"), 0);
    check_pair(&p, 0, 1);
}

static void test_B83_unknown_status(void **state)
{
    struct pair p = make_pair();
    (void)state;
    overwrite(p.path, (long)p.ref.status_at + 1, "?", 1);
    check_pair(&p, 1, 0);
}

/* The name is of a message that was never acknowledged, the content is of an
 * earlier one that was finished: recycled in silence. */
static void test_file_of_another_message_is_recycled(void **state)
{
    struct pair p = make_pair();
    struct id never = id_new();
    char path[128];
    (void)state;
    message_path(path, &never);
    assert_int_equal(rename(p.path, path), 0);
    rescan(p.s);
    assert_int_equal(p.s->seen_count, 1);
    assert_int_equal(p.s->quarantined, 0);
    settle(p.s);
    assert_int_equal(count_entries("corrupt"), 0);
    assert_int_equal(count_entries("free"), 1);
    end_spool(p.s);
}

/* ... also if the power failed in the middle of writing the newer one. */
static void test_torn_file_of_another_message_is_recycled(void **state)
{
    struct pair p = make_pair();
    struct id never = id_new();
    char path[128];
    (void)state;
    message_path(path, &never);
    assert_int_equal(rename(p.path, path), 0);
    overwrite(path, 320, "new content", 11);
    overwrite(path, 200, "new", 3); /* the envelope; the header is the old one */
    rescan(p.s);
    assert_int_equal(p.s->quarantined, 0);
    settle(p.s);
    assert_int_equal(count_entries("free"), 1);
    end_spool(p.s);
}

static void test_quarantine_keeps_every_file(void **state)
{
    (void)state;
    struct pair p = make_pair();
    char earlier[64];
    snprintf(earlier, sizeof earlier, "corrupt/%s", p.id.text);
    int fd = open(earlier, O_CREAT | O_WRONLY, 0600);
    close(fd);
    assert_int_equal(truncate(p.path, 10), 0);
    rescan(p.s);
    settle(p.s);
    assert_int_equal(count_entries("corrupt"), 2);
    end_spool(p.s);
}

static void test_directories_that_others_may_write_refuse_to_start(void **state)
{
    struct spool *s = new_spool();
    static const struct store_ops ops = {on_found, on_scanned, on_state, on_quarantined};
    struct event_base *base = event_base_new();
    struct store *store = NULL;
    struct err e;
    (void)state;
    assert_int_equal(mkdir("new", 0700), 0);
    assert_int_equal(chmod("new", 0777), 0);
    assert_int_equal(store_open(base, default_config(), &ops, s, &store, &e), -1);
    assert_non_null(strstr(e.text, "new"));
    event_base_free(base);
    end_spool(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_B76_empty_and_truncated),
        cmocka_unit_test(test_B77_checksum),
        cmocka_unit_test(test_B77_content_shows_at_reading),
        cmocka_unit_test(test_descriptor_of_a_damaged_message_is_its_owners),
        cmocka_unit_test(test_B78_B82_lengths_beyond_the_file),
        cmocka_unit_test(test_B79_later_version_is_left_alone),
        cmocka_unit_test(test_B80_not_a_file_of_ours),
        cmocka_unit_test(test_B81_names_outside_the_grammar),
        cmocka_unit_test(test_B83_unknown_status),
        cmocka_unit_test(test_file_of_another_message_is_recycled),
        cmocka_unit_test(test_torn_file_of_another_message_is_recycled),
        cmocka_unit_test(test_quarantine_keeps_every_file),
        cmocka_unit_test(test_directories_that_others_may_write_refuse_to_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
