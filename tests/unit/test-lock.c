/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Image locks: among ourselves, and against qemu-img and qemu-io, both ways. */
#include <config.h>

#include "tests/unit/in-loop.h"

#include "io/file.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define NAME "disk.qcow2"

/* As image/ asks for them. */
#define WRITER_PERMS	(PERM_CONSISTENT_READ | PERM_WRITE | PERM_RESIZE)
#define WRITER_UNSHARED (PERM_WRITE | PERM_RESIZE)
#define READER_PERMS	PERM_CONSISTENT_READ
#define READER_UNSHARED (PERM_WRITE | PERM_RESIZE)

static struct file *open_locked(unsigned flags, unsigned perms, unsigned unshared, GError **error)
{
	struct file_options o = {.flags = flags, .perms = perms, .unshared = unshared};

	return file_open(NAME, &o, error);
}

static struct file *open_writer(GError **error)
{
	return open_locked(FILE_RDWR, WRITER_PERMS, WRITER_UNSHARED, error);
}

static struct file *open_reader(GError **error)
{
	return open_locked(0, READER_PERMS, READER_UNSHARED, error);
}

static void expect_message(GError *error, const char *lock)
{
	g_autofree char *want = g_strdup_printf("Could not open '" NAME "': Failed to get %s lock\n"
						"Is another process using the image [" NAME "]?",
						lock);

	assert_non_null(error);
	assert_string_equal(error->message, want);
	g_error_free(error);
}

static int have_image(void **state)
{
	return g_file_set_contents(NAME, "x", 1, NULL) ? 0 : -1;
}

static void test_writer_excludes(void **state)
{
	GError *error = NULL;
	struct file *writer = open_writer(&error);

	assert_non_null(writer);
	assert_null(open_writer(&error));
	expect_message(error, "\"write\"");
	error = NULL;
	assert_null(open_reader(&error));
	expect_message(error, "shared \"write\"");

	/* -U: holds only the reading, and minds nobody. */
	struct file *any = open_locked(0, READER_PERMS, 0, NULL);
	assert_non_null(any);
	file_unref(any);

	file_unref(writer);
	struct file *reader = open_reader(NULL);
	assert_non_null(reader); /* closing freed them */
	file_unref(reader);
}

static void test_readers_share(void **state)
{
	GError *error = NULL;
	struct file *a = open_reader(NULL), *b = open_reader(NULL);

	assert_non_null(a);
	assert_non_null(b);
	assert_null(open_writer(&error));
	expect_message(error, "\"write\"");
	file_unref(a);
	error = NULL;
	assert_null(open_writer(&error)); /* the other still holds */
	expect_message(error, "\"write\"");
	file_unref(b);
	struct file *writer = open_writer(NULL);
	assert_non_null(writer);
	file_unref(writer);
}

/* A refused opener leaves nothing: neither locks nor an emptied file. */
static void test_refusal_leaves_nothing(void **state)
{
	struct file *reader = open_reader(NULL);
	struct stat st;

	assert_non_null(reader);
	assert_null(open_locked(FILE_RDWR | FILE_CREATE | FILE_TRUNC, WRITER_PERMS, WRITER_UNSHARED,
				NULL));
	assert_int_equal(stat(NAME, &st), 0);
	assert_true(st.st_size > 0);
	struct file *again = open_reader(NULL);
	assert_non_null(again);
	file_unref(again);
	file_unref(reader);
}

/* Exactly the bytes of QEMU's map, as the kernel lists them for our inode. */
static void expect_bytes(unsigned flags, unsigned perms, unsigned unshared, const char *want)
{
	struct file *f = open_locked(flags, perms, unshared, NULL);
	g_autofree char *text = NULL, *inode = NULL;
	unsigned found[256] = {0};
	GString *bytes = g_string_new(NULL);

	assert_non_null(f);
	assert_true(g_file_get_contents("/proc/locks", &text, NULL, NULL));
	inode = g_strdup_printf(":%lu ", (unsigned long)file_stat(f)->st_ino);
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
		const char *range = strstr(line, inode);
		unsigned start, end;

		if (!range || !strstr(line, "OFDLCK") || !strstr(line, "READ") ||
		    sscanf(range + strlen(inode), "%u %u", &start, &end) != 2)
			continue;
		for (unsigned i = start; i <= end && i < 256; i++)
			found[i] = 1;
	}
	for (unsigned i = 0; i < 256; i++)
		if (found[i])
			g_string_append_printf(bytes, "%u ", i);
	assert_string_equal(bytes->str, want);
	g_string_free(bytes, true);
	file_unref(f);
}

static void test_bytes(void **state)
{
	expect_bytes(FILE_RDWR, WRITER_PERMS, WRITER_UNSHARED, "100 101 103 201 203 ");
	expect_bytes(0, READER_PERMS, READER_UNSHARED, "100 201 203 ");
	expect_bytes(0, READER_PERMS, 0, "100 ");
	expect_bytes(0, 0, 0, "");
	expect_bytes(FILE_RDWR, 0xf, 0xf, "100 101 102 103 200 201 202 203 ");
}

/* --- with qemu --- */

static bool have(const char *program)
{
	g_autofree char *path = g_find_program_in_path(program);

	return path != NULL;
}

static int run(const char *command, char **said)
{
	int status;

	assert_true(g_spawn_command_line_sync(command, NULL, said, &status, NULL));
	return WEXITSTATUS(status);
}

static void make_qcow2(void)
{
	unlink(NAME);
	assert_int_equal(run("qemu-img create -q -f qcow2 " NAME " 1M", NULL), 0);
}

static void test_qemu_minds_us(void **state)
{
	char *said;

	if (!have("qemu-img") || !have("qemu-io")) {
		printf("no qemu-img or qemu-io\n");
		skip();
	}
	make_qcow2();
	struct file *f = open_writer(NULL);
	assert_non_null(f);
	assert_int_equal(run("qemu-img info " NAME, &said), 1);
	assert_string_equal(said, "qemu-img: Could not open '" NAME
				  "': Failed to get shared \"write\" lock\n"
				  "Is another process using the image [" NAME "]?\n");
	g_free(said);
	assert_int_equal(run("qemu-io -c 'write 0 512' " NAME, &said), 1);
	assert_non_null(strstr(said, "Failed to get \"write\" lock"));
	g_free(said);
	assert_int_equal(run("qemu-img info -U " NAME, NULL), 0);
	file_unref(f);

	f = open_reader(NULL);
	assert_int_equal(run("qemu-img info " NAME, NULL), 0);
	assert_int_equal(run("qemu-io -c 'write 0 512' " NAME, &said), 1);
	assert_non_null(strstr(said, "Failed to get \"write\" lock"));
	g_free(said);
	file_unref(f);
	assert_int_equal(run("qemu-io -c 'write 0 512' " NAME, NULL), 0);
}

/* Starts qemu-io, which opens the image and then waits for commands; answers the
 * first one when it has the locks. */
static FILE *start_qemu_io(const char *options)
{
	g_autofree char *command =
		g_strdup_printf("qemu-io %s " NAME " >qemu-io.out 2>&1", options);
	g_autofree char *said = NULL;
	FILE *p;

	unlink("qemu-io.out");
	p = popen(command, "w");
	assert_non_null(p);
	fputs("length\n", p);
	fflush(p);
	for (int i = 0; i < 1000; i++) {
		usleep(10000);
		g_free(said);
		said = NULL;
		if (g_file_get_contents("qemu-io.out", &said, NULL, NULL) && strstr(said, "1 MiB"))
			return p;
	}
	fail_msg("qemu-io did not begin: %s", said);
	return NULL;
}

static void test_we_mind_qemu(void **state)
{
	GError *error = NULL;
	FILE *qemu_io;

	if (!have("qemu-img") || !have("qemu-io")) {
		printf("no qemu-img or qemu-io\n");
		skip();
	}
	make_qcow2();
	qemu_io = start_qemu_io("");
	assert_null(open_writer(&error));
	expect_message(error, "\"write\"");
	error = NULL;
	assert_null(open_reader(&error));
	expect_message(error, "shared \"write\"");
	struct file *any = open_locked(0, READER_PERMS, 0, NULL);
	assert_non_null(any);
	file_unref(any);
	pclose(qemu_io);

	qemu_io = start_qemu_io("-r");
	error = NULL;
	assert_null(open_writer(&error));
	expect_message(error, "\"write\"");
	struct file *reader = open_reader(NULL);
	assert_non_null(reader);
	file_unref(reader);
	pclose(qemu_io);

	struct file *writer = open_writer(NULL);
	assert_non_null(writer);
	file_unref(writer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_writer_excludes),	       cmocka_unit_test(test_readers_share),
		cmocka_unit_test(test_refusal_leaves_nothing), cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_qemu_minds_us),	       cmocka_unit_test(test_we_mind_qemu),
	};

	return cmocka_run_group_tests(tests, have_image, NULL);
}
