/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files without a name, and scratch files: one part in memory, one in such a file. */
#include "config.h"

#include "tests/unit/in-loop.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/file-unnamed.h"
#include "io/file.h"

#define BORDER 20000u /* on no boundary of anything */
#define SPACE  60000u

static uint8_t model[SPACE], buf[SPACE];
static uint64_t model_size;

static void change(struct file *f, unsigned what, uint64_t offset, uint64_t len)
{
	struct iovec iov[2] = {{buf, len / 3}, {buf + len / 3, len - len / 3}};

	switch (what) {
	case 0:
	case 1:
		memset(buf, rand(), len);
		assert_int_equal(file_writev(f, offset, iov, 2), 0);
		memcpy(model + offset, buf, len);
		model_size = MAX(model_size, offset + len);
		break;
	case 2:
		if (offset + len > model_size)
			return;
		assert_int_equal(file_punch(f, offset, len), 0);
		memset(model + offset, 0, len);
		break;
	case 3:
		assert_int_equal(file_truncate(f, offset), 0);
		memset(model + offset, 0, SPACE - offset);
		model_size = offset;
		break;
	}
}

/* Every byte that is said to be none is zero, and the runs go to the end. */
static void expect_runs(struct file *f)
{
	for (uint64_t offset = 0, run; offset < model_size; offset += run) {
		bool is_data;

		assert_int_equal(file_extent(f, offset, model_size - offset, &is_data, &run), 0);
		assert_true(run > 0 && offset + run <= model_size);
		for (uint64_t i = offset; !is_data && i < offset + run; i++)
			assert_int_equal(model[i], 0);
	}
}

static void expect_model(struct file *f)
{
	struct iovec iov[2] = {{buf, 7777}, {buf + 7777, SPACE - 7777}};

	assert_int_equal(file_size(f), model_size);
	memset(buf, 0xee, SPACE);
	assert_int_equal(file_readv(f, 0, iov, 2), 0);
	assert_memory_equal(buf, model, SPACE);
	assert_int_equal(file_refresh_size(f), 0);
	assert_int_equal(file_size(f), model_size);
}

static int act_as_model(void *arg)
{
	struct file *f = file_new_scratch("s", BORDER, NULL);

	assert_non_null(f);
	srand(1);
	for (unsigned i = 0; i < 600; i++) {
		uint64_t offset = (uint64_t)rand() % (SPACE - 1);
		uint64_t len = 1 + (uint64_t)rand() % (SPACE - offset);

		change(f, (unsigned)rand() % 4, offset, len);
		expect_model(f);
		expect_runs(f);
	}
	assert_int_equal(file_flush(f), 0);
	file_unref(f);
	return 0;
}

static void is_one_file(void **state)
{
	in_loop(act_as_model, NULL);
}

static int make_before(void *arg)
{
	struct file *f = file_new_scratch("s", 10, NULL);
	int fd = open(scratch_path(f), O_RDWR);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, "0123456789abcdef", 16, 0), 16);
	close(fd);
	assert_int_equal(scratch_look(f), 0);
	assert_int_equal(file_size(f), 16);
	assert_int_equal(file_write(f, 14, "EFGH", 4), 0);
	assert_int_equal(file_read(f, 0, buf, 18), 0);
	assert_memory_equal(buf, "0123456789abcdEFGH", 18);
	file_unref(f);
	return 0;
}

static void takes_what_was_made_by_name(void **state)
{
	in_loop(make_before, NULL);
}

static int entries(const char *folder)
{
	GDir *dir = g_dir_open(folder, 0, NULL);
	int n = 0;

	while (g_dir_read_name(dir))
		n++;
	g_dir_close(dir);
	return n;
}

static void appears_once_and_complete(void **state)
{
	g_autofree char *folder = g_dir_make_tmp(NULL, NULL);
	g_autofree char *path = g_build_filename(folder, "file", NULL);
	g_autofree char *text = NULL;
	struct unnamed u, second;

	assert_true(unnamed_open(&u, path, 0600, NULL));
	assert_true(unnamed_open(&second, path, 0600, NULL));
	assert_true(entries(folder) == (u.name ? 2 : 0));
	assert_int_equal(write(u.fd, "all", 3), 3);
	assert_int_equal(unnamed_publish(&u, path), 0);
	assert_int_equal(unnamed_publish(&second, path), -EEXIST);
	unnamed_close(&u);
	unnamed_close(&second);
	assert_int_equal(entries(folder), 1);
	assert_true(g_file_get_contents(path, &text, NULL, NULL));
	assert_string_equal(text, "all");
	unlink(path);
	assert_int_equal(rmdir(folder), 0);
}

static void says_which_folder(void **state)
{
	g_autoptr(GError) error = NULL;
	struct unnamed u;

	assert_false(unnamed_open(&u, "/nonexistent/file", 0600, &error));
	assert_non_null(strstr(error->message, "'/nonexistent'"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(is_one_file),
		cmocka_unit_test(takes_what_was_made_by_name),
		cmocka_unit_test(appears_once_and_complete),
		cmocka_unit_test(says_which_folder),
	};

	fail_by_abort();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
