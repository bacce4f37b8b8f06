/* libraries: master_parts */
/* When a lookup table's file counts as changed. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/mem.h"
#include "master/tables.h"

static char path[] = "/tmp/postern-table-XXXXXX";

static void write_file(const char *text)
{
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void hand_over(struct table *t)
{
    int fd = table_open(t, NULL);
    assert_true(fd >= 0);
    close(fd);
}

static int set_up(void **state)
{
    static struct tables tables;
    int fd = mkstemp(path);
    if (fd < 0)
        return -1;
    close(fd);
    write_file("a.test smtp:[127.0.0.1]\n");
    char *list = xasprintf("texthash:%s", path);
    const struct config config = {.transport_maps = list,
                                  .smtp_tls_policy_maps = "",
                                  .smtp_tls_CAfile = "",
                                  .smtp_tls_CApath = ""};
    tables_set(&tables, &config);
    free(list);
    hand_over(&tables.list[0]);
    *state = &tables;
    return 0;
}

static int tear_down(void **state)
{
    tables_free(*state);
    unlink(path);
    memcpy(path + sizeof path - 7, "XXXXXX", 6);
    return 0;
}

static void change_counts_when_the_file_keeps_still(void **state)
{
    struct table *t = ((struct tables *)*state)->list;
    assert_false(table_changed(t));
    write_file("a.test smtp:[127.0.0.2]\nb.te");
    assert_false(table_changed(t)); /* perhaps half of it */
    write_file("a.test smtp:[127.0.0.2]\nb.test smtp:[127.0.0.3]\n");
    assert_false(table_changed(t));
    assert_true(table_changed(t));
    hand_over(t);
    assert_false(table_changed(t));
}

/* One that cannot be opened is complained about once, and taken when repaired. */
static void a_bad_file_is_told_once(void **state)
{
    struct table *t = ((struct tables *)*state)->list;
    write_file("c.test smtp:[127.0.0.4] \n");
    assert_false(table_changed(t));
    assert_true(table_changed(t));
    assert_false(table_changed(t));
    assert_int_equal(chmod(path, 0640), 0);
    assert_false(table_changed(t));
    assert_true(table_changed(t));
}

static void a_file_that_comes_back_is_taken(void **state)
{
    struct table *t = ((struct tables *)*state)->list;
    unlink(path);
    assert_false(table_changed(t));
    write_file("a.test smtp:[127.0.0.1]\n");
    assert_false(table_changed(t));
    assert_true(table_changed(t));
    hand_over(t);
    assert_false(table_changed(t));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(change_counts_when_the_file_keeps_still, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_bad_file_is_told_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_file_that_comes_back_is_taken, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
