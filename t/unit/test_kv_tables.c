/* libraries: postern_core postern_store */
#include "kv_unit.h"

/* Opens it as a program with so many tables does; its last two are "more" and "most". */
static struct kv *opened_by(unsigned table_count, enum kv_condition expected)
{
    static const char *const more[] = {"one", "two", "more", "most"};
    struct kv_config c = kv_test_config;
    enum kv_condition condition;
    struct err e = {0, ""};
    c.tables = more;
    c.table_count = table_count;
    struct kv *kv = kv_open(&c, &condition, &e);
    if (!kv)
        broken("it does not open", e.text);
    if (condition != expected)
        broken("it was found otherwise", e.text);
    return kv;
}

static void all_there(struct kv *kv)
{
    for (int i = 0; i < 2000; i++)
        assert_int_equal(has(kv, i, "value"), 1);
}

/* Programs of before there was one did not write it. */
static void forget_list(void)
{
    char path[128];
    snprintf(path, sizeof path, "%s/db/tables", directory);
    assert_int_equal(unlink(path), 0);
}

static void put_in(struct kv *kv, unsigned table)
{
    struct buf batch = BUF_INIT(KV_BATCH_MAX), value = BUF_INIT(KV_VALUE_MAX);
    struct err e;
    assert_int_equal(kv_put(&batch, table, SLICE("key"), SLICE("value")), 0);
    assert_int_equal(kv_apply(kv, buf_slice(&batch), &e), 0);
    assert_int_equal(kv_get(kv, table, SLICE("key"), &value, &e), 1);
    buf_free(&batch);
    buf_free(&value);
}

/* A later program has tables that the database has not: they are made, with a snapshot and
 * without, with the list of tables and in a database of before there was one. */
static void test_tables_of_a_later_program_are_no_damage(void **state)
{
    struct err e;
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct kv *kv = opened(KV_CREATED);
        put(kv, 0, 2000, "value");
        if (i % 2)
            assert_int_equal(kv_snapshot(kv, &e), 0);
        kv_close(kv);
        if (i / 2)
            forget_list();
        kv = opened_by(3, KV_SOUND);
        all_there(kv);
        put_in(kv, 2);
        kv_close(kv);
        kv = opened(KV_SOUND); /* the program of before, once more */
        all_there(kv);
        assert_int_equal(kv_snapshot(kv, &e), 0);
        kv_close(kv);
        kv = opened_by(4, KV_SOUND);
        put_in(kv, 2);
        put_in(kv, 3);
        kv_close(kv);
        /* and they are rebuilt like the others */
        damage("db/more.db", "garbage garbage garbage garbage garbage garbage", 0);
        kv = opened_by(4, KV_REBUILT);
        all_there(kv);
        put_in(kv, 3);
        kv_close(kv);
        (void)clear(NULL);
        assert_int_equal(make(NULL), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_tables_of_a_later_program_are_no_damage, make, clear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
